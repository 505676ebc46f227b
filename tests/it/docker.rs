//! What `docker/` says about weir is true of weir: its commands, its variables, its users. No container is run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::{Place, WEIR, free_port, http, repository, wait_for};
use serde_json::Value;

type Variables = BTreeMap<String, String>;

fn docker(file: &str) -> String {
    fs::read_to_string(repository().join("docker").join(file)).unwrap()
}

/// The services of the compose file that run weir: the words after `weir`, and what their environment sets.
fn services() -> BTreeMap<String, (Vec<String>, Variables)> {
    let compose: Value = serde_saphyr::from_str(&docker("compose.yaml")).unwrap();
    let services = compose["services"].as_object().expect("services");
    let of_weir = services.iter().filter(|(_, service)| service["image"] == "weir");
    let read = of_weir.map(|(name, service)| {
        assert_eq!(service["build"]["dockerfile"], "docker/Dockerfile", "{name}");
        let words = service["command"].as_array().unwrap_or_else(|| panic!("{name}: a command as a list"));
        let words = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        let variables = service["environment"].as_object().unwrap_or_else(|| panic!("{name}: an environment"));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), (words, variables.iter().map(|(name, value)| (name.clone(), text(value))).collect()))
    });
    read.collect()
}

/// Those lines of the Dockerfile that begin with `instruction`, without it.
fn instructions(instruction: &str) -> Vec<String> {
    let text = docker("Dockerfile");
    text.lines().filter_map(|line| Some(line.strip_prefix(instruction)?.trim().to_owned())).collect()
}

fn commands() -> BTreeSet<String> {
    let output = Command::new(WEIR).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: BTreeSet<String> = listed.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    assert!(names.contains("serve") && names.contains("help"), "{help}");
    names
}

#[test]
fn every_command_is_one_that_weir_has() {
    let known = commands();
    let services = services();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["console", "ingest", "pipeline"]);
    for (name, (words, _)) in &services {
        assert!(known.contains(&words[0]), "{name}: weir {words:?}");
        assert_eq!(*name, words[0], "a service is named as its command");
    }
    assert_eq!(instructions("ENTRYPOINT "), [r#"["weir"]"#]);
    let words: Vec<Vec<String>> =
        instructions("CMD ").iter().map(|words| serde_json::from_str(words).unwrap()).collect();
    assert_eq!(words.len(), 1);
    assert!(known.contains(&words[0][0]), "CMD {words:?}");
}

#[test]
fn every_variable_is_in_force_in_weir_config() {
    let image: Variables = instructions("ENV ")
        .iter()
        .map(|line| line.split_once('=').expect("ENV NAME=VALUE"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (name, (_, mut variables)) in services() {
        variables.extend(image.clone());
        let output = Command::new(WEIR)
            .args(["--config", "weir.toml", "config"])
            .current_dir(repository().join("docker"))
            .env_remove("WEIR_CHDB_LIB")
            .envs(&variables)
            .output()
            .unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        for (variable, value) in &variables {
            let Some(key) = variable.strip_prefix("WEIR_") else { panic!("{name}: {variable} is not weir's") };
            let key = key.to_lowercase().replace("__", ".");
            let value = if key.ends_with("password") { "(set)" } else { value };
            let line = format!("{key} = {value}  # {variable}");
            assert!(shown.lines().any(|shown| shown == line), "{name}: no line {line:?} in\n{shown}");
        }
    }
}

#[test]
fn every_file_that_is_mounted_or_copied_is_there() {
    let compose: Value = serde_saphyr::from_str(&docker("compose.yaml")).unwrap();
    let named: BTreeSet<&str> = compose["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().unwrap() {
            let from = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there = if from.starts_with('.') {
                repository().join("docker").join(from).is_file()
            } else {
                named.contains(from)
            };
            assert!(is_there, "{name}: {from}");
        }
    }
    let kept = compose["services"]["ingest"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .any(|volume| *volume == "spool:/var/lib/weir");
    assert!(kept, "a collector's spool outlives its container");
    let ignore = docker("Dockerfile.dockerignore");
    let sent: BTreeSet<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap());
    for needed in members.chain(["src", "Cargo.toml", "Cargo.lock"]) {
        let is_sent = Path::new(needed).ancestors().any(|path| sent.contains(path.to_str().unwrap()));
        assert!(is_sent, "the build cannot see {needed}");
    }
    for path in sent {
        assert!(repository().join(path).exists(), "{path}");
    }
}

/// The names and values that the analyst's profile, constraints and grants hold, one `<name>value` a line.
fn analyst(users: &str) -> BTreeSet<String> {
    let parts = users.split("<analyst>").skip(1).map(|part| part.split("</analyst>").next().unwrap());
    let lines: BTreeSet<String> = parts.flat_map(str::lines).map(|line| line.trim().to_owned()).collect();
    lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with("<password")).collect()
}

/// Those of [`analyst`] that are sizes of the machine.
fn of_the_machine(line: &str) -> bool {
    ["max_memory_usage", "max_bytes_before_external_", "max_threads", "max_final_threads"]
        .iter()
        .any(|name| line.starts_with(&format!("<{name}")) && !line.contains("<const/>"))
}

#[test]
fn the_analyst_is_held_to_the_limits_of_the_clickhouse_that_weir_starts() {
    let place = Place::new("");
    let serve = place.start();
    let file = place.dir.path().join("data/clickhouse/users.xml");
    let own = wait_for("users.xml", || fs::read_to_string(&file).ok().filter(|text| text.contains("</clickhouse>")));
    assert_eq!(serve.stop(), Some(0));
    let (own, theirs) = (analyst(&own), analyst(&docker("clickhouse/users.xml")));
    let name_of = |line: &String| line.split('>').next().unwrap().to_owned();
    let names = |lines: &BTreeSet<String>| -> BTreeSet<String> {
        lines.iter().filter(|line| of_the_machine(line)).map(name_of).collect()
    };
    assert_eq!(names(&own), names(&theirs));
    // Only the embedded server is new enough to be told this.
    let fixed = |lines: &BTreeSet<String>| -> BTreeSet<String> {
        let rest = lines.iter().filter(|line| !of_the_machine(line) && !line.contains("os_threads_nice_value_query"));
        rest.cloned().collect()
    };
    assert_eq!(fixed(&own), fixed(&theirs));

    let memory = number(&docker("clickhouse/config.xml"), "max_server_memory_usage");
    let users = docker("clickhouse/users.xml");
    assert_eq!(number(&users, "max_memory_usage"), memory * 30 / 100);
    assert_eq!(number(&users, "max_memory_usage_for_user"), memory * 30 / 100 * 2);
}

fn number(xml: &str, name: &str) -> u64 {
    let rest = xml.split(&format!("<{name}>")).nth(1).unwrap_or_else(|| panic!("no {name}"));
    rest.split('<').next().unwrap().parse().unwrap()
}

/// A ClickHouse that reads `docker/clickhouse/*.xml` as the image does: as files beside its own. Killed when dropped.
struct ClickHouse {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ClickHouse {
    fn start() -> ClickHouse {
        let (temporary, port) = (tempfile::tempdir().unwrap(), free_port());
        let dir = temporary.path();
        for part in ["data", "log", "backups", "config.d", "users.d"] {
            fs::create_dir(dir.join(part)).unwrap();
        }
        fs::write(dir.join("config.d/weir.xml"), docker("clickhouse/config.xml")).unwrap();
        fs::write(dir.join("users.d/weir.xml"), docker("clickhouse/users.xml")).unwrap();
        let path = dir.display();
        let config = format!(
            "<clickhouse><logger><level>error</level><log>{path}/log/log</log></logger><path>{path}/data/</path>
             <users_config>{path}/users.xml</users_config>
             <user_directories><users_xml><path>{path}/users.xml</path></users_xml></user_directories>
             <listen_host>127.0.0.1</listen_host><http_port>{port}</http_port></clickhouse>"
        );
        fs::write(dir.join("config.xml"), config).unwrap();
        // The image's own file, as far as ours leans on it.
        let users = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>
             <users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile>
             <quota>default</quota></default></users></clickhouse>";
        fs::write(dir.join("users.xml"), users).unwrap();
        let child = Command::new(WEIR)
            .args(["clickhouse", "embedded"])
            .arg(library())
            .args([dir, &dir.join("backups")])
            .env("CLICKHOUSE_WRITER_PASSWORD", "of-the-writer")
            .env("CLICKHOUSE_ANALYST_PASSWORD", "of-the-analyst")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let server = ClickHouse { child, port, _dir: temporary };
        wait_for("ClickHouse", || http("GET", &format!("http://127.0.0.1:{port}/ping"), None, None).ok());
        server
    }

    /// Status and text of what `user` is answered.
    fn ask(&self, user: &str, password: &str, sql: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}/?user={user}&password={password}", self.port);
        http("POST", &url, Some(sql), None).unwrap()
    }
}

fn library() -> PathBuf {
    std::env::var_os("WEIR_CHDB_LIB")
        .map_or_else(|| repository().join(".weir/node/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"), PathBuf::from)
}

#[test]
fn a_clickhouse_with_these_users_lets_the_writer_write_and_the_analyst_read() {
    let server = ClickHouse::start();
    let writer = |sql: &str| {
        let (status, text) = server.ask("weir", "of-the-writer", sql);
        assert_eq!(status, 200, "{sql}: {text}");
        text
    };
    let analyst = |sql: &str| server.ask("analyst", "of-the-analyst", sql);
    assert_ne!(server.ask("weir", "wrong", "SELECT 1").0, 200);
    assert_ne!(server.ask("analyst", "", "SELECT 1").0, 200);

    writer("CREATE DATABASE weir ENGINE = Atomic");
    writer("CREATE TABLE weir.secret (n UInt64) ENGINE = MergeTree ORDER BY n");
    writer("INSERT INTO weir.secret VALUES (7)");
    writer("CREATE VIEW weir.stats DEFINER = CURRENT_USER SQL SECURITY DEFINER AS SELECT n FROM weir.secret");
    assert_eq!(analyst("SELECT n FROM weir.stats"), (200, "7\n".to_owned()));
    for refused in [
        "SELECT n FROM weir.secret",
        "INSERT INTO weir.secret VALUES (8)",
        "SELECT n FROM weir.stats SETTINGS max_memory_usage = 0",
        "SELECT n FROM weir.stats SETTINGS max_threads = 64",
        "SELECT count() FROM system.processes",
    ] {
        let (status, text) = analyst(refused);
        assert_ne!(status, 200, "{refused}: {text}");
        assert!(
            ["ACCESS_DENIED", "READONLY", "SETTING_CONSTRAINT_VIOLATION"].iter().any(|why| text.contains(why)),
            "{text}"
        );
    }
    let limit = number(&docker("clickhouse/users.xml"), "max_memory_usage");
    assert_eq!(analyst("SELECT getSetting('max_memory_usage')"), (200, format!("{limit}\n")));
}
