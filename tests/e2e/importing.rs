//! `mijra contacts import`: an operator's file becomes a tenant's contacts.

use crate::quick;
use serde_json::json;

#[tokio::test]
async fn a_file_is_imported_and_its_bad_rows_are_named() {
    let fleet = quick().arrange().await;
    let slug = fleet.tenant.slug.as_str();
    let folder = std::env::temp_dir().join(format!("mijra-import-{}", fleet.tenant.id));
    std::fs::create_dir(&folder).unwrap();
    let (csv, ndjson, latin) = (folder.join("people.CSV"), folder.join("people.txt"), folder.join("latin.csv"));
    let rows: String = (0..3000).map(|n| format!("+49151{n:08},Person {n}\n")).collect();
    std::fs::write(&csv, format!("phone,name\n{rows}12,Too short\n+4915100000000,Twice\n")).unwrap();
    std::fs::write(&ndjson, "{\"phone\":\"+4915100000000\"}\n{\"phone\":\"+4915123456789\"}\n").unwrap();
    std::fs::write(&latin, b"phone,name\n+4915123456780,Zo\xeb\n").unwrap();

    let report = fleet.mijra(&["contacts", "import", csv.to_str().unwrap(), "--tenant", slug]).await;
    let of = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(["rows", "created", "existing", "duplicates", "rejected"].map(of), [3002, 3000, 0, 1, 1], "{report}");
    assert_eq!((&report["errors"][0]["row"], &report["errors"][0]["field"]), (&json!(3002), &json!("phone")));

    let arguments = ["contacts", "import", ndjson.to_str().unwrap(), "--tenant", slug];
    let refused = fleet.try_mijra(&arguments, &[]).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--format"));
    let report = fleet.mijra(&[&arguments[..], &["--format", "ndjson"]].concat()).await;
    assert_eq!((&report["created"], &report["existing"]), (&json!(1), &json!(1)));

    let ended = fleet.try_mijra(&["contacts", "import", latin.to_str().unwrap(), "--tenant", slug], &[]).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("row 2 is not UTF-8"), "{said}");

    let mended = |what: &str| said.contains(what);
    assert!(mended("mend the file") && !mended("can be repeated"), "{said}");
    std::fs::write(&latin, "phone,mail\n+4915123456780,a@example.com\n").unwrap();
    let ended = fleet.try_mijra(&["contacts", "import", latin.to_str().unwrap(), "--tenant", slug], &[]).await;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("nothing is stored: mend the header row"), "{said}");

    let mut admin = fleet.database.admin().await;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM contacts").fetch_one(&mut admin).await.unwrap();
    assert_eq!(stored, 3001);
    std::fs::remove_dir_all(&folder).unwrap();
}
