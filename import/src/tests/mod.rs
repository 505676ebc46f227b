//! The whole import, on an embedded log.

mod files;
#[path = "../../tests/support/hooked.rs"]
mod hooked;
mod life;
mod robust;
mod sample;
mod support;
