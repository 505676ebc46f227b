//! What the short drills of a test run have alike: how they are run, and what each of them promises.
#![allow(dead_code, reason = "each drill looks at its part")]

use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

/// What a drill said at its end.
pub(crate) struct Drilled {
    pub(crate) report: Value,
    pub(crate) status: ExitStatus,
}

impl Drilled {
    /// Runs a drill under load to its end: no event may be lost or counted twice, no request may fail, and the table must be
    /// that of an undisturbed run.
    pub(crate) fn of(args: &[&str]) -> Drilled {
        let drill = Command::new(env!("CARGO_BIN_EXE_weir-drill"))
            .args(args)
            .arg("--json")
            .stderr(Stdio::inherit())
            .output()
            .expect("the drill is there");
        let said = String::from_utf8_lossy(&drill.stdout);
        let last = said.lines().last().unwrap_or_default();
        let report = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}: {said}", drill.status));
        let drilled = Drilled { report, status: drill.status };
        assert!(drilled.number("acknowledged") >= 100_000, "{}", drilled.report);
        for none in ["lost", "twice", "strange", "failed_requests"] {
            assert_eq!(drilled.number(none), 0, "{none}: {}", drilled.report);
        }
        drilled.all_hold(&["digests_equal", "oracle_equal"]);
        drilled
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("{name} of {}", self.report))
    }

    pub(crate) fn seconds(&self, name: &str) -> f64 {
        self.report[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", self.report))
    }

    pub(crate) fn all_hold(&self, names: &[&str]) {
        names.iter().for_each(|name| assert_eq!(self.report[name], true, "{name}: {}", self.report));
    }
}
