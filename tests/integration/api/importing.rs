//! Bulk import: what becomes of the rows, of rows that are bad, and of imports that break off.

use super::{Answer, Stage, Tenant, answer, phone, staged, until};
use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};
use shared::domain::permissions::Permission;
use std::io;
use tokio::sync::mpsc;

const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
/// So many contacts are written together.
const BATCH: usize = 2000;

fn importing(stage: &Stage, tenant: &Tenant, content_type: &str, body: impl Into<Body>) -> RequestBuilder {
    let path = format!("/api/{}/contacts/import", tenant.slug);
    let request = stage.request(Method::POST, &path).bearer_auth(&tenant.token);
    request.header("content-type", content_type).body(body)
}

async fn import(stage: &Stage, tenant: &Tenant, content_type: &str, body: impl Into<Body>) -> Answer {
    answer(importing(stage, tenant, content_type, body)).await
}

/// Rows, created, existing, duplicates, rejected.
fn counts(report: &Answer) -> [u64; 5] {
    assert_eq!(report.status, 200, "{}", report.body);
    ["rows", "created", "existing", "duplicates", "rejected"].map(|name| report.body[name].as_u64().unwrap())
}

/// A body that is sent piece by piece: dropping the sender ends it, an error breaks it off.
fn by_hand() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (pieces, mut taken) = mpsc::channel::<io::Result<Bytes>>(1);
    let frames = futures_util::stream::poll_fn(move |context| {
        taken.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    });
    (pieces, Body::wrap(StreamBody::new(frames)))
}

/// A file of so many people, no two with one number.
fn people(count: usize) -> String {
    let rows: String = (0..count).map(|n| format!("+49151{n:08},Person {n}\n")).collect();
    format!("phone,name\n{rows}")
}

async fn contacts(stage: &Stage) -> i64 {
    stage.count("SELECT count(*) FROM contacts").await
}

async fn names_by_phone(stage: &Stage, tenant: &Tenant) -> Value {
    let listed = stage.get(tenant, "/contacts").await;
    let pairs = listed.body["data"].as_array().unwrap().iter();
    pairs.map(|contact| (contact["phone"].as_str().unwrap().to_owned(), contact["name"].clone())).collect()
}

#[tokio::test]
async fn a_file_becomes_contacts_and_a_second_time_makes_none() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let csv = "name,phone\r\nAda,0151 23456789\r\n\"Zoë, the\r\nsecond\",+49 151 23456780\r\n";
        assert_eq!(counts(&import(stage, &tenant, CSV, csv).await), [2, 2, 0, 0, 0]);
        assert_eq!(
            names_by_phone(stage, &tenant).await,
            json!({"+4915123456789": "Ada", "+4915123456780": "Zoë, the\r\nsecond"})
        );
        let ndjson = "{\"phone\":\"+4915123456789\"}\n{\"phone\":\"+49 151 23456781\",\"name\":\"Cy\"}\n";
        assert_eq!(counts(&import(stage, &tenant, NDJSON, ndjson).await), [2, 1, 1, 0, 0]);
        let again = import(stage, &tenant, "text/csv; charset=utf-8", csv).await;
        assert_eq!(counts(&again), [2, 0, 2, 0, 0]);
        assert_eq!((&again.body["errors"], &again.body["errors_left_out"]), (&json!([]), &json!(0)));
        assert_eq!(contacts(stage).await, 3);
        assert_eq!(stage.count("SELECT count(*) FROM contact_aliases WHERE kind = 'phone'").await, 3);
        assert_eq!(stage.count("SELECT count(*) FROM contacts WHERE phone_raw = '0151 23456789'").await, 1);
        let refused = stage.post(&tenant, "/contacts", &json!({"phone": "015123456781"})).await;
        assert_eq!(refused.problem(), (409, "exists", vec!["phone"]));
    })
    .await;
}

#[tokio::test]
async fn a_known_contact_takes_the_name_only_if_it_has_none() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (named, nameless) = (phone(), phone());
        stage.contact(&tenant, &named).await;
        assert_eq!(stage.post(&tenant, "/contacts", &json!({"phone": nameless})).await.status, 201);
        let csv = format!("phone,name\n{named},Bob\n{nameless},Cy\n");
        assert_eq!(counts(&import(stage, &tenant, CSV, csv.clone()).await), [2, 0, 2, 0, 0]);
        assert_eq!(names_by_phone(stage, &tenant).await, json!({named.clone(): "Ada", nameless.clone(): "Cy"}));
        import(stage, &tenant, CSV, csv.replace("Cy", "Dee")).await;
        import(stage, &tenant, CSV, csv.replace("Cy", "")).await;
        assert_eq!(names_by_phone(stage, &tenant).await, json!({named: "Ada", nameless: "Cy"}));
    })
    .await;
}

#[tokio::test]
async fn of_several_rows_with_one_number_the_first_counts() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        // The last is in another batch than the first.
        let file = format!("{}0151 00000000,Other\n+4915100000000,Another\n", people(BATCH));
        assert_eq!(counts(&import(stage, &tenant, CSV, file).await), [2002, 2000, 0, 2, 0]);
        let first = "SELECT count(*) FROM contacts WHERE phone = '+4915100000000' AND name = 'Person 0'";
        assert_eq!(stage.count(first).await, 1);
    })
    .await;
}

#[tokio::test]
async fn rows_that_are_bad_are_named_and_stop_nothing() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let bad = "12,Too short\n".repeat(110);
        let csv = format!("phone,name\n+4915123456789,Ada\n\n,Nobody\n+4915123456780\n{bad}+4915123456781,\n");
        let report = import(stage, &tenant, CSV, csv).await;
        assert_eq!(counts(&report), [114, 2, 0, 0, 112]);
        let errors = report.body["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &report.body["errors_left_out"]), (100, &json!(12)));
        assert_eq!(errors[0], json!({"row": 4, "field": "phone", "detail": "is missing"}));
        let detail = "has 1 fields where the header row has 2";
        assert_eq!(errors[1], json!({"row": 5, "field": null, "detail": detail}));
        assert_eq!((&errors[2]["row"], &errors[2]["field"]), (&json!(6), &json!("phone")));
        assert!(errors[2]["detail"].as_str().unwrap().contains("DE is assumed"), "{}", errors[2]);

        let ndjson = format!(
            "{}\n{}\n{}\n{}\n",
            r#"{"phone":"+4915123456782","tags":["vip"]}"#,
            r#"{"name":"Ada"}"#,
            r#"{"phone":"+49151\u0000"}"#,
            r#"{"phone":"+4915123456783","name":"A\u0000"}"#
        );
        let report = import(stage, &tenant, NDJSON, ndjson).await;
        assert_eq!(counts(&report), [4, 0, 0, 0, 4]);
        let named: Vec<&str> =
            report.body["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!(named, ["tags", "phone", "phone", "name"]);
        assert_eq!(contacts(stage).await, 2);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_by_what_is_wrong_with_it() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let row = "+4915123456789,Ada\n";
        let refusals = [
            ("application/json", format!("phone,name\n{row}"), (415, "not_importable", vec!["Content-Type"])),
            ("text/csv; charset=latin1", format!("phone,name\n{row}"), (415, "not_importable", vec!["Content-Type"])),
            (CSV, String::new(), (400, "bad_columns", vec!["phone"])),
            (CSV, row.to_owned(), (400, "bad_columns", vec!["+4915123456789", "Ada", "phone"])),
            (CSV, "phone,email,name,tag\n".to_owned(), (400, "bad_columns", vec!["email", "tag"])),
            (CSV, "phone;name\n+4915123456789;Ada\n".to_owned(), (400, "bad_columns", vec!["phone;name", "phone"])),
        ];
        for (content_type, body, expected) in refusals {
            let refused = import(stage, &tenant, content_type, body.clone()).await;
            assert_eq!(refused.problem(), expected, "{body}");
            if expected.1 == "bad_columns" {
                let detail = refused.body["detail"].as_str().unwrap();
                assert!(detail.starts_with("Nothing is stored: mend the header row"), "{detail}");
            }
        }
        let zipped = importing(stage, &tenant, CSV, "\x1f").header("content-encoding", "gzip");
        assert_eq!(answer(zipped).await.problem(), (415, "not_importable", vec!["Content-Encoding"]));
        let reader = Tenant { token: stage.token(tenant.id, &[Permission::ContactsRead], None).await, ..tenant };
        let refused = import(stage, &reader, CSV, people(1)).await;
        assert_eq!(refused.body["detail"], "This needs the permission contacts:write.");
        assert_eq!(contacts(stage).await, 0);
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_text_end_the_import_and_it_says_what_is_stored() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let mut file = people(BATCH + 10).into_bytes();
        file.extend(b"+4915123456789,Zo\xeb\n");
        let refused = import(stage, &tenant, CSV, file).await;
        assert_eq!(refused.problem(), (400, "not_text", vec![]));
        assert_eq!(refused.body["stored"], 2000);
        assert!(refused.body["detail"].as_str().unwrap().contains("row 2012 is not UTF-8"), "{}", refused.body);
        assert_eq!(contacts(stage).await, 2000);
    })
    .await;
}

#[tokio::test]
async fn imports_of_the_same_numbers_at_once_make_one_contact_each() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let forwards = people(3 * BATCH);
        let mut rows: Vec<&str> = forwards.lines().skip(1).collect();
        rows.reverse();
        let backwards = format!("phone,name\n{}", rows.join("\n"));
        let (one, other) =
            tokio::join!(import(stage, &tenant, CSV, forwards.clone()), import(stage, &tenant, CSV, backwards));
        let (one, other) = (counts(&one), counts(&other));
        assert_eq!((one[0], other[0]), (6000, 6000));
        assert_eq!((one[1] + one[2], other[1] + other[2]), (6000, 6000), "{one:?} {other:?}");
        assert_eq!(one[1] + other[1], 6000, "{one:?} {other:?}");
        assert_eq!(contacts(stage).await, 6000);
        let joined = "SELECT count(*) FROM contact_aliases a JOIN contacts c ON (c.tenant_id, c.id, c.phone) = (a.tenant_id, a.contact_id, a.value)";
        assert_eq!(stage.count(joined).await, 6000);
    })
    .await;
}

#[tokio::test]
async fn what_another_tenant_has_is_neither_found_nor_changed() {
    staged(async |stage| {
        let (ours, theirs) = (stage.tenant("ours").await, stage.tenant("theirs").await);
        let number = phone();
        assert_eq!(stage.post(&theirs, "/contacts", &json!({"phone": number})).await.status, 201);
        let csv = format!("phone,name\n{number},Ada\n");
        assert_eq!(counts(&import(stage, &ours, CSV, csv).await), [1, 1, 0, 0, 0]);
        assert_eq!(names_by_phone(stage, &theirs).await, json!({number.clone(): null}));
        assert_eq!(names_by_phone(stage, &ours).await, json!({number: "Ada"}));
    })
    .await;
}

#[tokio::test]
async fn a_body_is_read_as_it_comes_however_it_is_cut() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (pieces, body) = by_hand();
        let answered = importing(stage, &tenant, CSV, body).send();
        let feed = async {
            let file = format!("\u{feff}{}", people(BATCH + 100));
            let (whole_batch, rest) = file.as_bytes().split_at(file.len() - 150);
            for (at, piece) in whole_batch.chunks(61).enumerate() {
                // Now and then a byte by itself.
                let (first, others) = piece.split_at(at % 2);
                for part in [first, others].into_iter().filter(|part| !part.is_empty()) {
                    pieces.send(Ok(Bytes::copy_from_slice(part))).await.unwrap();
                }
            }
            // Stored while the sender is still speaking.
            until("the first batch is stored", async || contacts(stage).await == 2000).await;
            pieces.send(Ok(Bytes::copy_from_slice(rest))).await.unwrap();
            drop(pieces);
        };
        let (answered, ()) = tokio::join!(answered, feed);
        let report: Value = serde_json::from_str(&answered.unwrap().text().await.unwrap()).unwrap();
        assert_eq!((&report["rows"], &report["created"], &report["rejected"]), (&json!(2100), &json!(2100), &json!(0)));
    })
    .await;
}

#[tokio::test]
async fn an_import_that_breaks_off_is_simply_sent_again() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (pieces, body) = by_hand();
        let answered = importing(stage, &tenant, CSV, body).send();
        let feed = async {
            pieces.send(Ok(people(2 * BATCH + 500).into())).await.unwrap();
            until("two batches are stored", async || contacts(stage).await == 4000).await;
            let _ = pieces.send(Err(io::ErrorKind::ConnectionReset.into())).await;
        };
        let (answered, ()) = tokio::join!(answered, feed);
        assert!(answered.is_err(), "the sender broke off");
        assert_eq!(counts(&import(stage, &tenant, CSV, people(2 * BATCH + 500)).await), [4500, 500, 4000, 0, 0]);
        assert_eq!(contacts(stage).await, 4500);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_goes_away_ends_the_import_which_says_how_far_it_got() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (pieces, body) = by_hand();
        let answered = tokio::time::timeout(super::SOON, answer(importing(stage, &tenant, CSV, body)));
        let feed = async {
            pieces.send(Ok(people(BATCH + 1).into())).await.unwrap();
            until("the first batch is stored", async || contacts(stage).await == 2000).await;
            stage.database_relay.close();
            drop(pieces);
        };
        let (answered, ()) = tokio::join!(answered, feed);
        let refused = answered.expect("an answer in time");
        assert_eq!(refused.problem(), (503, "unavailable", vec![]));
        assert_eq!(refused.body["stored"], 2000);
        assert!(refused.headers.contains_key("retry-after"));
        stage.database_relay.restore();
        until("it is there again", async || {
            let again = import(stage, &tenant, CSV, people(BATCH + 1)).await;
            again.status == 200 && counts(&again)[1..3] == [1, 2000]
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_stops_ends_its_imports_and_they_say_how_far_they_got() {
    staged(async |stage| {
        let tenant = stage.tenant("demo").await;
        let (pieces, body) = by_hand();
        let answered = answer(importing(stage, &tenant, CSV, body));
        let feed = async {
            pieces.send(Ok(people(BATCH + 1).into())).await.unwrap();
            until("the first batch is stored", async || contacts(stage).await == 2000).await;
            stage.life.stop();
            // The sender has more to say until it hears the answer.
            pieces.closed().await;
        };
        let (refused, ()) = tokio::join!(answered, feed);
        assert_eq!(refused.problem(), (503, "unavailable", vec![]));
        assert_eq!(refused.body["stored"], 2000);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_has_two_imports_under_way_and_no_third() {
    staged(async |stage| {
        let (tenant, other) = (stage.tenant("demo").await, stage.tenant("other").await);
        let ((one, first), (two, second)) = (by_hand(), by_hand());
        let under_way = async {
            tokio::join!(answer(importing(stage, &tenant, CSV, first)), answer(importing(stage, &tenant, CSV, second)))
        };
        let third = async {
            one.send(Ok(people(BATCH).into())).await.unwrap();
            two.send(Ok(people(BATCH).replace("+49151", "+49152").into())).await.unwrap();
            until("both are under way", async || contacts(stage).await == 4000).await;
            let refused = import(stage, &tenant, NDJSON, "").await;
            assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].as_bytes()), (503, &b"10"[..]));
            assert_eq!(counts(&import(stage, &other, CSV, people(1)).await), [1, 1, 0, 0, 0]);
            drop((one, two));
        };
        let ((first, second), ()) = tokio::join!(under_way, third);
        assert_eq!(counts(&first)[1] + counts(&second)[1], 4000);
        assert_eq!(counts(&import(stage, &tenant, CSV, people(1)).await), [1, 0, 1, 0, 0]);
    })
    .await;
}
