//! Table and view definitions, derived from a [`crate::SchemaVersion`].
