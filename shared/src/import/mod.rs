//! Bulk import of contacts: a stream of bytes becomes rows, rows become batches, and every batch is written in a transaction of
//! its own, so that an import that breaks off is simply repeated. Memory is bounded whatever the length of the stream; a bad row
//! is reported and stops nothing. Where the bytes come from is the caller's business.

mod csv;
mod ndjson;
mod reader;
mod report;

pub use reader::{ColumnProblem, MAX_ROW_BYTES, MAX_ROWS, Unreadable};
pub use report::{MAX_ERRORS, Report, RowError};

use crate::{
    db::{
        self, Databases, Placement, TenantTx,
        audit::{self, Actor, Entry},
        contacts::CreatedMany,
    },
    domain::ids::TenantId,
};
use bytes::Bytes;
use reader::{Batch, Reader};
use serde_json::{Value, json};

/// How often a batch is written that meets others at the same numbers.
const TRIES: u32 = 5;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header row, then a row a contact (RFC 4180, commas).
    Csv,
    /// A JSON object a line.
    Ndjson,
}

/// Where the bytes come from.
pub trait Pieces: Send {
    /// Why there are no more although there should be.
    type Broken: Send;

    /// The next bytes; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Broken>> + Send;
}

/// Whose contacts they become.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The databases.
    pub databases: &'a Databases,
    /// Where the tenant's data lives.
    pub placement: &'a Placement,
    /// The tenant.
    pub tenant_id: TenantId,
    /// Who imports them.
    pub actor: Actor,
}

/// An import that ended before its stream did.
#[derive(Debug)]
pub struct Stopped<B> {
    /// What was written until then.
    pub report: Report,
    /// Why it ended.
    pub why: Why<B>,
}

/// Why an import ended before its stream did.
#[derive(Debug)]
pub enum Why<B> {
    /// The bytes cannot be read as what they are said to be.
    Unreadable(Unreadable),
    /// No more bytes came.
    Broken(B),
    /// The database could not, or not now.
    Database(db::Error),
}

/// Imports contacts. `progress` hears what has been done so far after every batch.
///
/// While a batch is being written, the next is read, on a thread that holds up nobody else's requests.
///
/// # Errors
/// If it ended before the stream did; what had been written stays.
pub async fn contacts<P: Pieces>(
    target: Target<'_>,
    format: Format,
    pieces: &mut P,
    progress: impl FnMut(&Report) + Send,
) -> Result<Report, Stopped<P::Broken>> {
    let mut report = Report::default();
    let reader = match default_region(target).await {
        Ok(region) => Box::new(Reader::new(format, region)),
        Err(error) => return Err(Stopped { report, why: Why::Database(error) }),
    };
    let source = Source { pieces, piece: Bytes::new(), reader: Some(reader) };
    let why = all(target, source, &mut report, progress).await.err();
    // A database that did not take a batch takes nothing else.
    let recorded =
        if matches!(why, Some(Why::Database(_))) { Ok(()) } else { record_end(target, &report, why.is_none()).await };
    match why.or(recorded.err().map(Why::Database)) {
        None => Ok(report),
        Some(why) => Err(Stopped { report, why }),
    }
}

async fn all<P: Pieces>(
    target: Target<'_>,
    mut source: Source<'_, P>,
    report: &mut Report,
    mut progress: impl FnMut(&Report) + Send,
) -> Result<(), Why<P::Broken>> {
    let mut batch = Batch::default();
    loop {
        let (written, next) = tokio::join!(write(target, &batch, report.created), source.next_batch());
        report.add(batch.report, written.map_err(Why::Database)?);
        progress(report);
        match next? {
            Some(next) => batch = next,
            None => return Ok(()),
        }
    }
}

async fn default_region(target: Target<'_>) -> db::Result<Option<String>> {
    let mut tx = target.databases.tenant(target.placement, target.tenant_id).await?;
    let region = db::tenants::default_region(&mut tx).await?;
    tx.commit().await?;
    Ok(region)
}

async fn write(target: Target<'_>, batch: &Batch, created: u64) -> db::Result<CreatedMany> {
    if batch.contacts.is_empty() {
        return Ok(CreatedMany::default());
    }
    let mut tries = 1;
    loop {
        match write_once(target, batch, created).await {
            Err(error) if error.kind() == db::Kind::Contention && tries < TRIES => tries += 1,
            written => return written,
        }
    }
}

/// With the first contacts goes the word that an import makes some: a crash leaves that at least.
async fn write_once(target: Target<'_>, batch: &Batch, created: u64) -> db::Result<CreatedMany> {
    let mut tx = target.databases.tenant(target.placement, target.tenant_id).await?;
    let written = db::contacts::create_many(&mut tx, &batch.contacts).await?;
    if created == 0 && written.created > 0 {
        record(&mut tx, target, "contacts.import_started", json!({})).await?;
    }
    tx.commit().await?;
    Ok(written)
}

/// What came of it, if it made any.
async fn record_end(target: Target<'_>, report: &Report, complete: bool) -> db::Result<()> {
    if report.created == 0 {
        return Ok(());
    }
    let details = json!({
        "created": report.created, "existing": report.existing, "duplicates": report.duplicates, "rejected": report.rejected,
        "complete": complete,
    });
    let mut tx = target.databases.tenant(target.placement, target.tenant_id).await?;
    record(&mut tx, target, "contacts.imported", details).await?;
    tx.commit().await?;
    Ok(())
}

async fn record(tx: &mut TenantTx, target: Target<'_>, action: &str, details: Value) -> db::Result<()> {
    let Target { tenant_id, actor, .. } = target;
    audit::record(tx, &Entry { actor, action, target_kind: "tenant", target_id: tenant_id.0, details }).await
}

/// A stream on its way to batches.
struct Source<'a, P> {
    pieces: &'a mut P,
    /// What has come and is not read yet.
    piece: Bytes,
    /// `None` once the stream has ended.
    reader: Option<Box<Reader>>,
}

impl<P: Pieces> Source<'_, P> {
    /// The next batch; `None` after the last.
    async fn next_batch(&mut self) -> Result<Option<Batch>, Why<P::Broken>> {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let Some(reader) = self.reader.take() else { break };
            if self.piece.is_empty() {
                match self.pieces.next().await.map_err(Why::Broken)? {
                    Some(piece) => self.piece = piece,
                    None => {
                        reader.finish(&mut batch).map_err(Why::Unreadable)?;
                        break;
                    }
                }
            }
            let piece = std::mem::take(&mut self.piece);
            let read = tokio::task::spawn_blocking(move || read(reader, piece, batch)).await;
            let read = read.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
            let (reader, rest, read) = read.map_err(Why::Unreadable)?;
            (self.reader, self.piece, batch) = (Some(reader), rest, read);
        }
        Ok(Some(batch).filter(|batch| batch.report.rows > 0))
    }
}

/// Reads until the piece is used up or the batch is full.
fn read(
    mut reader: Box<Reader>,
    mut piece: Bytes,
    mut batch: Batch,
) -> Result<(Box<Reader>, Bytes, Batch), Unreadable> {
    let used = reader.read(&piece, &mut batch)?;
    let rest = piece.split_off(used);
    Ok((reader, rest, batch))
}
