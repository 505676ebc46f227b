//! Faults that a test injects by name: the process ends where it is, as if somebody had killed it.

/// The steps of a conversion after which a process can be made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Started,
    TablesMade,
    Compared,
    Verified,
    ShowOrdered,
    ViewsBounded,
    Shown,
    ViewsMoved,
    DropOrdered,
    Dropped,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Step::Started => "started",
            Step::TablesMade => "tables-made",
            Step::Compared => "compared",
            Step::Verified => "verified",
            Step::ShowOrdered => "show-ordered",
            Step::ViewsBounded => "views-bounded",
            Step::Shown => "shown",
            Step::ViewsMoved => "views-moved",
            Step::DropOrdered => "drop-ordered",
            Step::Dropped => "dropped",
        }
    }

    /// To be called when the step is done; ends the process if `WEIR_TEST_FAULT` names it.
    pub(crate) fn done(self) {
        if std::env::var_os("WEIR_TEST_FAULT").is_some_and(|fault| fault == self.name()) {
            eprintln!("weir: WEIR_TEST_FAULT={}: ends here", self.name());
            std::process::abort();
        }
    }
}
