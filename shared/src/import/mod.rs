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
    db::{self, Databases, Placement, contacts::CreatedMany},
    domain::ids::TenantId,
};
use bytes::Bytes;
use reader::{Batch, Reader};

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
    mut progress: impl FnMut(&Report) + Send,
) -> Result<Report, Stopped<P::Broken>> {
    let mut report = Report::default();
    let reader = match default_region(target).await {
        Ok(region) => Box::new(Reader::new(format, region)),
        Err(error) => return Err(Stopped { report, why: Why::Database(error) }),
    };
    let mut source = Source { pieces, piece: Bytes::new(), reader: Some(reader) };
    let mut batch = Batch::default();
    loop {
        let (written, next) = tokio::join!(write(target, &batch), source.next_batch());
        match written {
            Ok(written) => report.add(batch.report, written),
            Err(error) => return Err(Stopped { report, why: Why::Database(error) }),
        }
        progress(&report);
        match next {
            Ok(Some(next)) => batch = next,
            Ok(None) => return Ok(report),
            Err(why) => return Err(Stopped { report, why }),
        }
    }
}

async fn default_region(target: Target<'_>) -> db::Result<Option<String>> {
    let mut tx = target.databases.tenant(target.placement, target.tenant_id).await?;
    let region = db::tenants::default_region(&mut tx).await?;
    tx.commit().await?;
    Ok(region)
}

async fn write(target: Target<'_>, batch: &Batch) -> db::Result<CreatedMany> {
    if batch.contacts.is_empty() {
        return Ok(CreatedMany::default());
    }
    let mut tries = 1;
    loop {
        match write_once(target, batch).await {
            Err(error) if error.kind() == db::Kind::Contention && tries < TRIES => tries += 1,
            written => return written,
        }
    }
}

async fn write_once(target: Target<'_>, batch: &Batch) -> db::Result<CreatedMany> {
    let mut tx = target.databases.tenant(target.placement, target.tenant_id).await?;
    let written = db::contacts::create_many(&mut tx, &batch.contacts).await?;
    tx.commit().await?;
    Ok(written)
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
