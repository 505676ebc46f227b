//! The crash drill, as short as it can be: part of every test run.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_minute_of_kills_loses_no_event_and_counts_none_twice() {
    let drill = Command::new(env!("CARGO_BIN_EXE_weir-drill"))
        .args(["crash", "--minutes", "1", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("the drill is there");
    let said = String::from_utf8_lossy(&drill.stdout);
    let last = said.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}: {said}", drill.status));
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} of {report}"));
    assert!(number("acknowledged") >= 100_000 && number("kills") >= 6, "{report}");
    assert_eq!((number("lost"), number("twice"), number("failed_requests")), (0, 0, 0), "{report}");
    assert_eq!((&report["digests_equal"], &report["oracle_equal"]), (&true.into(), &true.into()), "{report}");
    assert!(drill.status.success(), "{}: {report}", drill.status);
}
