//! What a program demands before it starts.

use crate::{SOON, quick};
use support::programs::Program;
use tokio::process::Command;

/// Starts a program as nobody would want to and returns how it ended and what it said.
async fn start(program: Program, url: &str) -> (Option<i32>, String) {
    let fleet_like = [
        ("AMQP_URL", std::env::var("AMQP_URL").unwrap()),
        ("REDIS_URL", std::env::var("REDIS_URL").unwrap()),
        ("MIJRA_SECRET_KEYS", "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        ("MIJRA_NAMESPACE", "test.never-started".to_owned()),
        ("API_LISTEN", "127.0.0.1:0".to_owned()),
        ("HEALTH_LISTEN", "127.0.0.1:0".to_owned()),
        ("DATABASE_URL", url.to_owned()),
    ];
    let running = Command::new(program.path()).env_clear().envs(fleet_like).kill_on_drop(true).output();
    let output = tokio::time::timeout(SOON, running).await.expect("it ends by itself").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_role_that_could_see_every_tenant_is_refused_by_every_program() {
    let mut fleet = quick().arrange().await;
    let bypassing = fleet.database.make_role("BYPASSRLS").await;
    let owner = fleet.database.make_role("").await;
    let mut admin = fleet.database.admin().await;
    let give = format!("ALTER TABLE templates OWNER TO {owner}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(give)).execute(&mut admin).await.unwrap();
    let database = &fleet.database;
    let cases = [
        (database.admin_url(), "it is a superuser"),
        (database.url_as(&bypassing, "mijra-tests"), "it has BYPASSRLS"),
        (database.url_as(&owner, "mijra-tests"), "it owns the tables"),
    ];
    let mut wrong = Vec::new();
    for (url, why) in &cases {
        for program in Program::ALL {
            let (code, said) = start(program, url.as_str()).await;
            if code != Some(2) || !said.contains(why) {
                wrong.push(format!("{} as {why}: exit {code:?}, said: {said}", program.name()));
            }
        }
        let output = fleet.try_mijra(&["tenant", "list"], &[("DATABASE_URL", url.as_str())]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !said.contains(why) {
            wrong.push(format!("mijra as {why}: {}, said: {said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_refused_with_the_remedy() {
    let fleet = quick().arrange().await;
    let mut admin = fleet.database.admin().await;
    sqlx::raw_sql("DELETE FROM tenant_migrations").execute(&mut admin).await.unwrap();
    for program in Program::ALL {
        let role = if program == Program::Api { support::database::Role::Api } else { support::database::Role::Worker };
        let (code, said) = start(program, fleet.database.url(role).as_str()).await;
        assert!(code == Some(2) && said.contains("run `mijra migrate`"), "{}: {code:?}: {said}", program.name());
    }
}
