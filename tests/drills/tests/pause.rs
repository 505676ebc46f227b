//! The pause drill, as short as it can be: part of every test run.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn a_maintenance_of_half_a_minute_fails_no_request_and_leaves_the_table_of_an_undisturbed_run() {
    let drill = Command::new(env!("CARGO_BIN_EXE_weir-drill"))
        .args(["pause", "--minutes", "1", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("the drill is there");
    let said = String::from_utf8_lossy(&drill.stdout);
    let last = said.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}: {said}", drill.status));
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} of {report}"));
    assert!(number("acknowledged") >= 100_000 && number("kills") == 4, "{report}");
    assert_eq!((number("lost"), number("twice"), number("failed_requests")), (0, 0, 0), "{report}");
    for held in ["digests_equal", "oracle_equal", "stood_still", "gap_filled"] {
        assert_eq!(report[held], true, "{held}: {report}");
    }
    // How soon exactly is promised of a machine that is not busy with other tests: `./dev drill pause` looks at that.
    assert!(report["seconds_to_present"].as_f64() < Some(30.0), "{report}");
    assert_eq!(drill.status.success(), report["seconds_to_present"].as_f64() <= report["seconds_promised"].as_f64());
}
