//! A copy of everything, and back to it: the order of deeds, and why it is the order.
//!
//! A copy takes the record first and the rows later: what was done then is still there, whole, and rows that came in
//! between are more than the record names, never fewer. So a copy is void while something is taken out: of what is given
//! up, or of an import that is undone, it would have the record without the rows. It holds no owners.
//!
//! A restore drops `owners` first, so that every statement of every run fails from then on, and makes it anew as its last
//! deed, empty: nothing that was sent before can equal anything in it. Cut anywhere it leaves everything closed, and is
//! begun again; one that was begun meanwhile takes over, and the deeds of the one before it fail.

use crate::error::Failure;
use crate::owner::end_running;
use crate::table::Running;

/// All tables of a database, as one copy or one restore sees them. Each method may be cut anywhere, and is then begun
/// again from the first.
pub trait Vault: Running {
    /// Which `owners` there is, another one after each restore, and which DELETEs there were; `None` while a restore has
    /// dropped it, or while one is under way, or windows are recorded as both done and lost: those are being given up.
    fn standing(&self) -> impl Future<Output = Result<Option<String>, Failure>> + Send;

    fn copy_record(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    fn copy_rows(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Drops `owners`: every statement that starts from now on fails, one that replaces a day, which knows no owner, because
    /// its source has another name.
    fn close(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Makes this the only restore: those before it fail with their next deed.
    fn take_over(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The record is the copy's.
    fn bring_record(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The rows are the copy's, without those that no `done` of the record covers.
    fn bring_rows(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Makes `owners` anew, empty.
    fn open(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Copies; `false`: a restore or a DELETE was under way or began meanwhile, so it is void.
pub async fn copy_on(vault: &impl Vault) -> Result<bool, Failure> {
    let Some(before) = vault.standing().await? else { return Ok(false) };
    vault.copy_record().await?;
    vault.copy_rows().await?;
    Ok(vault.standing().await? == Some(before))
}

/// Goes back to a copy. `Err`: everything stays closed until it has been begun again, to the end.
pub async fn restore_on(vault: &impl Vault) -> Result<(), Failure> {
    vault.close().await?;
    vault.take_over().await?;
    end_running(vault).await?;
    vault.bring_record().await?;
    vault.bring_rows().await?;
    vault.open().await
}
