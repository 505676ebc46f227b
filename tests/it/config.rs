//! `weir config` says what is in force and where each value came from, and nothing that is secret.

use std::os::unix::ffi::OsStringExt;

use crate::support::Place;

/// The line of `key`, as (value, source).
fn line(shown: &str, key: &str) -> (String, String) {
    let begins = format!("{key} = ");
    let line = shown.lines().find_map(|line| line.strip_prefix(&begins));
    let (value, source) =
        line.and_then(|line| line.rsplit_once("  # ")).unwrap_or_else(|| panic!("no {key} in {shown}"));
    (value.to_owned(), source.to_owned())
}

#[test]
fn flags_are_over_variables_which_are_over_the_file_which_is_over_the_defaults() {
    let place = Place::new("[pipeline]\nworkers = 1\ntick_after = \"2s\"\nmemory_bytes_max = 33554432");
    let variables = [("WEIR_PIPELINE__WORKERS", "2"), ("WEIR_PIPELINE__TICK_AFTER", "3s")];
    let output = place.command(&["--set", "pipeline.workers=3", "config"]).envs(variables).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line(&shown, "pipeline.workers"), ("3".into(), "flag --set".into()));
    assert_eq!(line(&shown, "pipeline.tick_after"), ("3s".into(), "WEIR_PIPELINE__TICK_AFTER".into()));
    let (value, source) = line(&shown, "pipeline.memory_bytes_max");
    assert!(value == "33554432" && source.ends_with("weir.toml"), "{value} from {source}");
    assert_eq!(line(&shown, "log.partitions"), ("4".into(), "default".into()));
}

#[test]
fn secrets_are_not_shown_whatever_sets_them() {
    let place = Place::new(
        "[kafka.options]\n\"ssl.key.pem\" = \"hush-pem\"\n\"sasl.password\" = \"hush-sasl\"\n\"security.protocol\" = \"SASL_SSL\"",
    );
    let variables = [
        ("WEIR_CLICKHOUSE__PASSWORD", "hush-writer"),
        ("WEIR_KAFKA__OPTIONS__SASL_OAUTHBEARER_CLIENT_SECRET", "hush-oauth"),
    ];
    let args = ["--set", "clickhouse.analyst_password=hush-analyst", "config"];
    let output = place.command(&args).envs(variables).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(!shown.contains("hush"), "{shown}");
    for key in [
        "clickhouse.password",
        "clickhouse.analyst_password",
        "kafka.options.ssl.key.pem",
        "kafka.options.sasl.password",
        "kafka.options.sasl.oauthbearer.client.secret",
    ] {
        assert_eq!(line(&shown, key).0, "(set)", "{key}");
    }
    assert_eq!(line(&shown, "kafka.options.security.protocol").0, "SASL_SSL");
}

#[test]
fn a_variable_that_is_no_text_is_named_and_one_that_is_not_ours_is_passed_over() {
    let place = Place::new("");
    let no_text = std::ffi::OsString::from_vec(vec![0xff, 0xfe]);
    let passed_over = place.command(&["config"]).env("OTHER", &no_text).env(&no_text, "x").output().unwrap();
    assert!(passed_over.status.success(), "{passed_over:?}");
    let refused = place.command(&["config"]).env("WEIR_CLICKHOUSE__PASSWORD", &no_text).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("WEIR_CLICKHOUSE__PASSWORD is not UTF-8"), "{said}");
}

#[test]
fn a_command_that_nobody_reads_any_more_ends_quietly_as_others_do() {
    let place = Place::new("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.command(&["config"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
