//! Holds the arrows of ARCHITECTURE.md: who may import whom, and what may be named where. A failure says what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A layer of `shared` and the layers it may import.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("crash", &[]),
    ("config", &[]),
    ("lifecycle", &[]),
    ("links", &["domain", "seal"]),
    ("retry", &[]),
    ("seal", &[]),
    ("telemetry", &["config", "lifecycle"]),
    ("health", &["lifecycle", "telemetry"]),
    ("cache", &["telemetry", "clock"]),
    ("domain", &["clock"]),
    ("jobs", &["domain", "clock", "telemetry"]),
    ("queue", &["jobs", "domain", "clock", "lifecycle", "telemetry", "retry", "crash"]),
    ("db", &["jobs", "domain", "clock", "seal", "telemetry", "crash"]),
    ("import", &["db", "domain"]),
    ("storage", &["config", "domain"]),
    ("providers", &["config", "domain", "jobs", "clock", "telemetry"]),
];

/// A name, where it may stand, and what to do instead elsewhere.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("lapin::", &["shared/src/queue", "tests/load/bare", "tests/integration/queue"], "go through shared::queue"),
    (
        "sqlx::query",
        &["shared/src/db", "tests/"],
        "write a function in shared::db: `verb(&mut TenantTx | &mut FleetTx | &mut ControlTx, …)`",
    ),
    ("object_store::", &["shared/src/storage.rs"], "go through shared::storage"),
    ("PgPool", &["shared/src/db", "tests/"], "take a scope from shared::db::Databases"),
    ("std::env::var", &["shared/src/config", "shared/src/crash.rs", "tests/"], "add a setting to shared::config"),
    ("env::var", &["shared/src/config", "shared/src/crash.rs", "tests/"], "add a setting to shared::config"),
    (
        "backoff::",
        &["shared/src/retry.rs"],
        "go through shared::retry: the crate is unmaintained and to be replaced in one file",
    ),
    ("Utc::now()", &["shared/src/clock.rs", "tests/"], "take a shared::clock::Clock"),
    ("counter!(\"", &["shared/src/telemetry"], "name the metric in shared::telemetry::names"),
    ("gauge!(\"", &["shared/src/telemetry"], "name the metric in shared::telemetry::names"),
    ("histogram!(\"", &["shared/src/telemetry"], "name the metric in shared::telemetry::names"),
];

#[test]
fn layers_of_shared_import_only_downwards() {
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources("shared/src") {
        let text = code(&file);
        let path = relative(&file);
        let layer = path.trim_start_matches("shared/src/").split(['/', '.']).next().unwrap_or_default().to_owned();
        if layer == "lib" {
            continue;
        }
        let Some(may) = allowed.get(layer.as_str()) else {
            wrong.push(format!("{path}: the layer {layer} is not in the table of tests/tidy.rs and ARCHITECTURE.md"));
            continue;
        };
        for other in imported(&text, "crate") {
            if other != layer && allowed.contains_key(other.as_str()) && !may.contains(&other.as_str()) {
                wrong.push(format!("{path}: {layer} may not import {other}; it may import {may:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn api_and_workers_meet_only_at_queues() {
    let mut wrong = Vec::new();
    for (folder, stranger) in [("api/src", "workers"), ("workers/src", "api")] {
        for file in sources(folder) {
            if code(&file).contains(&format!("{stranger}::")) {
                wrong.push(format!("{}: imports {stranger}; put a job on a queue instead", relative(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_worker_imports_another() {
    let kinds = ["inbound", "outbound", "campaign", "media", "scheduler"];
    let mut wrong = Vec::new();
    for kind in kinds {
        for file in sources(&format!("workers/src/{kind}")) {
            for other in imported(&code(&file), "crate") {
                if kinds.contains(&other.as_str()) && other != kind {
                    wrong.push(format!("{}: {kind} imports {other}; they meet at queues", relative(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn names_stand_only_where_they_belong() {
    let mut wrong = Vec::new();
    for folder in ["shared/src", "api/src", "workers/src", "tests"] {
        for file in sources(folder) {
            let path = relative(&file);
            if path == "tests/tidy.rs" {
                continue;
            }
            let text = code(&file);
            for (name, places, instead) in CONFINED {
                if text.contains(name) && !places.iter().any(|place| path.starts_with(place)) {
                    wrong.push(format!("{path}: {name} may stand only in {places:?}; {instead}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_setting_is_in_the_example() {
    let example = fs::read_to_string(root().join(".env.example")).expect(".env.example is there");
    let mut missing = BTreeSet::new();
    for folder in ["shared/src", "api/src", "workers/src"] {
        for file in sources(folder) {
            for part in code(&file).split("env = \"").skip(1) {
                let name = part.split('"').next().unwrap_or_default();
                if !example.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(&format!("{name}="))) {
                    missing.insert(name.to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in .env.example: {missing:?}");
    let mut listed = BTreeSet::new();
    let names = example.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=')).map(|(name, _)| name);
    let setting = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let twice: Vec<&str> = names.filter(setting).filter(|name| !listed.insert(*name)).collect();
    assert!(twice.is_empty(), "twice in .env.example: {twice:?}");
}

/// The fuzz targets are a workspace of their own, which nothing else builds.
#[test]
fn the_fuzz_targets_lock_is_that_of_what_they_test() {
    let manifest = fs::read_to_string(root().join("shared/Cargo.toml")).unwrap();
    let wanted: BTreeSet<&str> = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty() && !name.starts_with('#')))
        .collect();
    let lock = fs::read_to_string(root().join("tests/fuzz/Cargo.lock")).unwrap();
    let (_, package) = lock.split_once("name = \"mijra-shared\"\n").unwrap();
    let (package, _) = package.split_once("\n\n").unwrap_or((package, ""));
    let locked: BTreeSet<&str> =
        package.lines().filter_map(|line| line.strip_prefix(" \"")?.split([' ', '"']).next()).collect();
    assert_eq!(locked, wanted, "run `cargo metadata` in tests/fuzz and commit its Cargo.lock");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).expect("a file of the workspace").to_string_lossy().into_owned()
}

/// All Rust files below a folder.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file without its comments and without its unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a readable source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first segments that follow `root::`, in paths and in grouped imports.
fn imported(text: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split(&format!("{root}::")).skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0_i32;
            let mut word = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ if depth > 0 => {}
                    ',' => drop(found.insert(std::mem::take(&mut word))),
                    _ if letter.is_alphanumeric() || letter == '_' => word.push(letter),
                    ':' => drop(found.insert(std::mem::take(&mut word))),
                    _ => {}
                }
            }
            found.insert(word);
        } else {
            found.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.remove("");
    found
}
