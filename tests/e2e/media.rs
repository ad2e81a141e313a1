//! Files: fetched from hosts that fail, expire and lead elsewhere, and stored as they were sent; and those that nobody wants.

use crate::{SOON, until};
use serde_json::Value;
use shared::domain::{
    channel::Provider,
    messages::{MediaRef, MessageKind},
};
use std::time::Duration;
use support::{
    media::{self, Reference, Stage, disagreements, peak_memory},
    programs::Program,
    sandbox::files::{Behaviour, Files, Kind},
};

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_is_stored_through_failures_expired_links_and_redirects() {
    let behaviour = Behaviour { fail_rate: 0.1, expired_rate: 0.1, redirect_rate: 0.3, not_there_yet: 1 };
    let files = Files::start(5, behaviour).await.unwrap();
    let references = media::many(&files, 60, 4 * MIB);
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    stage.receive(&fleet, &references).await;
    let rows = stage.settled(&fleet, references.len(), Duration::from_secs(150)).await;
    let wrong = disagreements(&fleet, &files, &rows).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let totals = files.totals();
    assert!(totals.cut > 0 && totals.refused > 0 && totals.expired > 0 && totals.redirected > 0, "{totals:?}");
    assert_eq!((files.leaks(), files.unauthorised()), (0, 0), "credentials go where they belong, and only there");
    assert_eq!(fleet.dead_letters().await.len(), 0);
    let pictures: Vec<_> = rows.iter().filter(|row| row.content_type.as_deref() == Some("image/png")).collect();
    assert!(pictures.iter().all(|row| row.width == Some(16) && row.thumbnail_key.is_some()), "{pictures:?}");
    let pid = fleet.process(Program::Media).pid().unwrap();
    let peak = peak_memory(pid);
    assert!(peak < 200 * MIB, "{} MiB", peak / MIB);
}

/// A file of Messenger's at this address.
fn at(message: &str, url: String, mime_type: &str, kind: MessageKind) -> Reference {
    let file = MediaRef { url: Some(url), mime_type: Some(mime_type.to_owned()), ..MediaRef::default() };
    Reference { provider: Provider::Messenger, message: message.to_owned(), kind, file }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_refused_with_a_reason() {
    let files = Files::start(6, Behaviour::default()).await.unwrap();
    let sent = |id: &str, kind: Kind| {
        files.send(id, kind, 4096);
        files.meta_link(id, 3_600_000)
    };
    let redirect = |to: &str| format!("{}/hostile/redirect?to={to}", files.cdn_url());
    let image = MessageKind::Image;
    let cases = [
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned(), "refused", "private_address"),
        ("to-metadata", redirect("http://169.254.169.254/latest/meta-data/"), "refused", "private_address"),
        ("to-loopback", redirect("http://127.0.0.1:22/"), "refused", "private_address"),
        ("to-private", redirect("https://10.0.0.7/x"), "refused", "private_address"),
        ("to-elsewhere", redirect("https://evil.example/x"), "refused", "host_not_allowed"),
        ("to-file", redirect("file:///etc/passwd"), "refused", "bad_address"),
        ("elsewhere", "https://evil.example/x".to_owned(), "refused", "host_not_allowed"),
        ("html", sent("html", Kind::HtmlAsJpeg), "refused", "dangerous_type"),
        ("program", sent("program", Kind::ProgramAsPdf), "refused", "dangerous_type"),
        ("bomb", sent("bomb", Kind::Bomb), "refused", "image_bomb"),
        ("endless", format!("{}/hostile/endless", files.cdn_url()), "refused", "too_large"),
        ("over", files.meta_link("over", -1000), "expired", "expired"),
        ("fine", sent("fine", Kind::Png), "stored", ""),
    ];
    let kinds = |name: &str| match name {
        "program" => ("application/pdf", MessageKind::Document),
        "bomb" | "fine" => ("image/png", image),
        _ => ("image/jpeg", image),
    };
    let references: Vec<Reference> = cases
        .iter()
        .map(|(name, url, _, _)| {
            let (mime_type, kind) = kinds(name);
            at(name, url.clone(), mime_type, kind)
        })
        .collect();
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    stage.receive(&fleet, &references).await;
    let rows = stage.settled(&fleet, references.len(), Duration::from_secs(90)).await;
    let mut wrong = Vec::new();
    for (name, _, state, code) in &cases {
        let row = rows.iter().find(|row| row.provider_message_id == *name).unwrap();
        let told = row.reason.as_deref().unwrap_or_default();
        tracing::info!(name, state = row.state, code = row.code, told);
        if row.state != *state
            || row.code.as_deref().unwrap_or_default() != *code
            || (told.is_empty() && !code.is_empty())
        {
            wrong.push(format!("{name}: {row:?}"));
        }
        if *state != "stored" && row.storage_key.is_some() {
            wrong.push(format!("{name}: something of it is stored"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let peak = peak_memory(fleet.process(Program::Media).pid().unwrap());
    assert!(peak < 200 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_this_machine_is_not_gone_to_and_refused_in_the_end() {
    let files = Files::start(9, Behaviour::default()).await.unwrap();
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    // Its provider's, as the list of hosts says.
    let here = at("name-of-here", "https://localhost/x".to_owned(), "image/jpeg", MessageKind::Image);
    stage.receive(&fleet, &[here]).await;
    let mut admin = fleet.database.admin().await;
    let refused_once =
        "SELECT count(*) FROM media WHERE state = 'waiting' AND code = 'private_address' AND attempts > 0";
    until("it is tried again", SOON, async || {
        sqlx::query_scalar::<_, i64>(refused_once).fetch_one(&mut admin).await.unwrap() == 1
    })
    .await;
    // A day later.
    sqlx::query("UPDATE media SET created_at = now() - interval '2 days', attempts = attempts + 5")
        .execute(&mut admin)
        .await
        .unwrap();
    let rows = stage.settled(&fleet, 1, Duration::from_secs(60)).await;
    assert_eq!((rows[0].state.as_str(), rows[0].code.as_deref()), ("refused", Some("private_address")), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_storage_is_away_nothing_is_fetched_twice_and_nothing_charged() {
    let files = Files::start(10, Behaviour::default()).await.unwrap();
    let names: Vec<String> = (0..12).map(|nth| format!("picture-{nth}")).collect();
    let references: Vec<Reference> = names
        .iter()
        .map(|name| {
            files.send(name, Kind::Png, 20_000);
            at(name, files.meta_link(name, 3_600_000), "image/png", MessageKind::Image)
        })
        .collect();
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    // Where objects go no folder can be made.
    let objects = fleet.storage().folder().unwrap().join("tenants");
    std::fs::write(&objects, b"in the way").unwrap();
    stage.receive(&fleet, &references).await;
    let worker = fleet.process(Program::Media);
    until("the worker says why it cannot work", SOON, async || {
        let conditions = worker.conditions(&fleet.http).await;
        conditions.get("files").is_some_and(|why| why.contains("storing a file")) && !worker.is_ready(&fleet.http).await
    })
    .await;
    std::fs::remove_file(&objects).unwrap();
    let rows = stage.settled(&fleet, names.len(), Duration::from_secs(90)).await;
    assert!(rows.iter().all(|row| row.state == "stored" && row.attempts == 0), "{rows:?}");
    let fetched: Vec<u32> = names.iter().map(|name| files.served(name).begun).collect();
    assert!(fetched.iter().all(|begun| *begun == 1), "{fetched:?}");
    until("it is ready again", SOON, async || worker.is_ready(&fleet.http).await).await;
    let mut admin = fleet.database.admin().await;
    let claims: i64 = sqlx::query_scalar("SELECT sum(claims)::bigint FROM media").fetch_one(&mut admin).await.unwrap();
    assert_eq!(claims, 0, "who looked came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_messenger_needs_no_secrets_and_one_that_needs_them_waits_for_their_key() {
    let files = Files::start(11, Behaviour::default()).await.unwrap();
    files.send("free", Kind::Png, 20_000);
    files.send("sealed", Kind::Png, 20_000);
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    let mut admin = fleet.database.admin().await;
    sqlx::query("UPDATE channel_accounts SET secret_key_id = 'lost'").execute(&mut admin).await.unwrap();
    let file = MediaRef { url: Some(files.twilio_link("sealed")), ..MediaRef::default() };
    let sealed = Reference { provider: Provider::Twilio, message: "sealed".into(), kind: MessageKind::Image, file };
    stage
        .receive(&fleet, &[sealed, at("free", files.meta_link("free", 3_600_000), "image/png", MessageKind::Image)])
        .await;
    let as_it_should = "SELECT count(*) FROM media
        WHERE (provider = 'messenger' AND state = 'stored')
            OR (provider = 'twilio' AND state = 'waiting' AND code = 'sealing_key_missing' AND attempts = 0 AND claim IS NULL)";
    until("one is stored and the other waits, uncharged", SOON, async || {
        sqlx::query_scalar::<_, i64>(as_it_should).fetch_one(&mut admin).await.unwrap() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_given_up_is_fetched_once_more_when_somebody_asks() {
    let files = Files::start(12, Behaviour::default()).await.unwrap();
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    let over = |name: &str| at(name, files.meta_link(name, -1000), "image/png", MessageKind::Image);
    stage.receive(&fleet, &[over("one"), over("two")]).await;
    let rows = stage.settled(&fleet, 2, Duration::from_secs(60)).await;
    assert!(rows.iter().all(|row| row.state == "expired"), "{rows:?}");
    // Their provider has them after all.
    let mut admin = fleet.database.admin().await;
    for name in ["one", "two"] {
        files.send(name, Kind::Png, 9_000);
        let link = "UPDATE media SET url = $1 FROM messages m WHERE m.id = message_id AND m.provider_message_id = $2";
        let link = sqlx::query(link).bind(files.meta_link(name, 3_600_000)).bind(name);
        link.execute(&mut admin).await.unwrap();
    }
    let of_one =
        "SELECT message_id, f.id FROM media f JOIN messages m ON m.id = message_id WHERE m.provider_message_id = 'one'";
    let (message, file): (uuid::Uuid, uuid::Uuid) = sqlx::query_as(of_one).fetch_one(&mut admin).await.unwrap();
    let path = format!("/messages/{message}/files/{file}/fetch");
    let (status, asked) = fleet.post(&path, "1", &serde_json::json!({})).await.unwrap();
    assert_eq!((status.as_u16(), &asked["state"]), (202, &"waiting".into()), "{asked}");
    let rows = stage.settled(&fleet, 2, Duration::from_secs(60)).await;
    let mut states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["expired", "stored"]);
    let (status, refused) = fleet.post(&path, "2", &serde_json::json!({})).await.unwrap();
    assert_eq!((status.as_u16(), &refused["type"]), (409, &"urn:mijra:problem:wrong_state".into()), "{refused}");
    let retried = fleet.mijra(&["media", "retry", "--tenant", &fleet.tenant.slug, "--since", "1d"]).await;
    assert_eq!(retried["files"], 1, "the other");
    let rows = stage.settled(&fleet, 2, Duration::from_secs(60)).await;
    assert!(rows.iter().all(|row| row.state == "stored"), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_seen_by_a_signed_link_in_whole_and_in_parts() {
    let files = Files::start(7, Behaviour::default()).await.unwrap();
    let picture = files.send("picture", Kind::Png, 20_000);
    let page = files.send("page", Kind::Pdf, 9_000);
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    let references = [
        at("picture", files.meta_link("picture", 3_600_000), "image/png", MessageKind::Image),
        at("page", files.meta_link("page", 3_600_000), "application/pdf", MessageKind::Document),
    ];
    stage.receive(&fleet, &references).await;
    stage.settled(&fleet, 2, Duration::from_secs(60)).await;
    let conversations = fleet.get("/conversations").await.unwrap();
    let conversation = conversations["data"][0]["id"].as_str().unwrap();
    let conversation = conversations["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["channel_account_id"] == stage.account(Provider::Messenger).to_string())
        .map_or(conversation, |c| c["id"].as_str().unwrap());
    let messages = fleet.get(&format!("/conversations/{conversation}/messages")).await.unwrap();
    let of = |id: &str| -> Value {
        let found = messages["data"].as_array().unwrap().iter().find(|m| m["provider_message_id"] == id);
        found.unwrap()["files"][0].clone()
    };
    let shown = of("picture");
    assert_eq!((&shown["state"], &shown["type"], &shown["width"]), (&"stored".into(), &"image/png".into(), &16.into()));
    assert_eq!(shown["sha256"], picture.sha256);
    let url = |shown: &Value, which: &str| format!("{}{}", fleet.api, shown[which].as_str().unwrap());
    let whole = fleet.http.get(url(&shown, "url")).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    let header = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert_eq!(header(&whole, "content-type"), "image/png");
    assert!(header(&whole, "content-disposition").starts_with("inline"));
    assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
    assert!(header(&whole, "content-security-policy").contains("sandbox"));
    assert!(header(&whole, "cache-control").contains("max-age="));
    assert_eq!(header(&whole, "set-cookie"), "");
    let etag = header(&whole, "etag");
    assert_eq!(whole.bytes().await.unwrap().len(), 20_000);
    let part = fleet.http.get(url(&shown, "url")).header("range", "bytes=8-15").send().await.unwrap();
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 8-15/20000".to_owned()));
    assert_eq!(part.bytes().await.unwrap().len(), 8);
    let beyond = fleet.http.get(url(&shown, "url")).header("range", "bytes=20000-").send().await.unwrap();
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, "bytes */20000".to_owned()));
    let same = fleet.http.get(url(&shown, "url")).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(same.status(), 304);
    let small = fleet.http.get(url(&shown, "thumbnail_url")).send().await.unwrap();
    assert_eq!((small.status().as_u16(), header(&small, "content-type")), (200, "image/jpeg".to_owned()));
    let saved = fleet.http.get(url(&of("page"), "url")).send().await.unwrap();
    assert!(header(&saved, "content-disposition").starts_with("attachment"), "a document is only to be saved");
    assert_eq!(saved.bytes().await.unwrap().len() as u64, page.size);
    let forged = url(&shown, "url").replace("/file/", "/thumbnail/");
    assert_eq!(fleet.http.get(forged).send().await.unwrap().status(), 404, "a link opens what it was signed for");
    let link = url(&shown, "url");
    let changed = format!("{}{}", &link[..link.len() - 1], if link.ends_with('0') { '1' } else { '0' });
    assert_eq!(fleet.http.get(changed).send().await.unwrap().status(), 404);
    // What may not be kept for longer: not in a cache either.
    let mut admin = fleet.database.admin().await;
    sqlx::query("UPDATE media SET keep_until = now() + interval '50 seconds'").execute(&mut admin).await.unwrap();
    let kept = header(&fleet.http.get(&link).send().await.unwrap(), "cache-control");
    let seconds = kept.split("max-age=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert!(seconds.parse::<u32>().unwrap() <= 50, "{kept}");
    sqlx::query("UPDATE media SET keep_until = now()").execute(&mut admin).await.unwrap();
    assert_eq!(fleet.http.get(&link).send().await.unwrap().status(), 404, "whoever is late to remove it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_name_gets_the_one_their_provider_tells_and_a_copy_of_the_picture() {
    let files = Files::start(8, Behaviour::default()).await.unwrap();
    let fleet = media::fleet(&files).start().await;
    let stage = Stage::new(&fleet).await;
    stage.meet(&fleet, Provider::Messenger, "24000000000000077").await;
    // This one has not consented.
    stage.meet(&fleet, Provider::Instagram, "980000000000230").await;
    let mut admin = fleet.database.admin().await;
    until("both have been asked about", SOON, async || {
        let waiting = "SELECT count(*) FROM contact_profiles WHERE state = 'waiting'";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut admin).await.unwrap() == 0
    })
    .await;
    type Told = (Option<String>, String, Option<String>, Option<String>);
    let told: Vec<Told> = sqlx::query_as(
        "SELECT c.name, p.state, p.code, p.storage_key
        FROM contact_profiles p
        JOIN contacts c ON c.tenant_id = p.tenant_id AND c.id = p.contact_id
        ORDER BY p.provider DESC",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let [(name, state, _, key), (nobody, refused, code, nothing)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((name.as_deref(), state.as_str()), (Some("Person 24000000000000077"), "known"));
    assert!(fleet.storage().size_bytes(key.as_deref().unwrap()).await.unwrap().is_some());
    assert_eq!(
        (nobody.as_deref(), refused.as_str(), code.as_deref(), nothing.as_deref()),
        (None, "unavailable", Some("230"), None)
    );
    assert_eq!(files.leaks(), 0, "the picture's host sees no token");
}
