pub(crate) mod memory_log;
pub(crate) mod oracle;
