//! The browser that tests look at pages with.

use std::path::PathBuf;

/// Debian's browser. Not there: the test fails where `WEIR_TEST_CHROMIUM=required`, and says elsewhere that it was skipped.
pub(crate) fn chromium() -> Option<PathBuf> {
    let chromium = PathBuf::from("/usr/bin/chromium");
    if chromium.is_file() {
        return Some(chromium);
    }
    let required = std::env::var_os("WEIR_TEST_CHROMIUM").is_some_and(|word| word == "required");
    assert!(!required, "{} is not there (apt-get install chromium)", chromium.display());
    eprintln!("SKIPPED: no browser was run: {} is not there (apt-get install chromium)", chromium.display());
    None
}
