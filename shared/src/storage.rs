//! Where files lie: a folder, or a bucket of anything that speaks S3. Nothing else touches `object_store`.
//!
//! Keys are made of what the bytes are ([`crate::domain::media::object_key`]), so storing the same again changes nothing, and an
//! object is there whole or not at all: it is written aside and then named.

use crate::config::{Mistake, StorageArgs};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::AmazonS3Builder, local::LocalFileSystem, path::Path as Key, prefix::PrefixStore,
};
use secrecy::ExposeSecret;
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// S3 takes no smaller part of an upload but the last.
const S3_PART_BYTES: usize = 5 * 1024 * 1024;
/// A folder takes any.
const FOLDER_PART_BYTES: usize = 1024 * 1024;
/// A bucket that says nothing for so long, be it while it reads a part, says nothing any more. How long all of a body takes is
/// not bounded here: whoever reads it may be slow.
const S3_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// A call is not begun again when so much time is over: with the last attempt it takes less than twice as long.
const S3_RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const S3_RETRIES: usize = 3;

/// What has been written aside, and not been written to for so long, is nobody's any more: its process was killed.
const STAGED_FOR: Duration = Duration::from_secs(3600);

/// Where it is tried whether the storage takes anything.
const PROBE: &str = "mijra-probe";

/// Where files lie. Cheap to clone.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    folder: Option<Arc<Path>>,
    shown: Arc<str>,
    part_bytes: usize,
}

/// The storage does not do what it should: ours to mend, and nobody's file is to blame.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Error {
    doing: &'static str,
    source: object_store::Error,
}

/// An object being read.
pub struct Reading {
    /// How large all of it is.
    pub size_bytes: u64,
    /// Which bytes these are.
    pub range: Range<u64>,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

/// An upload in parts. One that is not completed, also because nobody waits for it any more, is aborted: a bucket keeps, and charges
/// for, the parts until then.
struct Upload(Option<Box<dyn MultipartUpload>>);

impl Drop for Upload {
    #[allow(
        clippy::disallowed_methods,
        reason = "nobody waits for it; a process that ends leaves it to the bucket's own rule"
    )]
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(object_store::Error) -> Error + Clone {
    move |source| Error { doing, source }
}

impl Storage {
    /// The storage of these settings. A folder is made if it is not there; a bucket is asked only when something is stored or read.
    ///
    /// # Errors
    /// If the settings mean nothing.
    pub fn open(settings: &StorageArgs) -> Result<Self, Mistake> {
        let mistake = |problem: String| Mistake { setting: "STORAGE_URL", problem };
        if let Some(bucket) = settings.storage_url.strip_prefix("s3://") {
            return bucket_of(bucket, settings).map_err(|error| mistake(error.to_string()));
        }
        let folder = settings.storage_url.strip_prefix("file:").unwrap_or_default();
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        if folder.is_empty() {
            return Err(mistake("must be file:///a/folder or s3://a-bucket/prefix".to_owned()));
        }
        Self::in_folder(Path::new(folder)).map_err(|error| mistake(format!("{folder}: {error}")))
    }

    /// A folder as storage.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn in_folder(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // What is said to be stored must survive the machine as well.
        let store = LocalFileSystem::new_with_prefix(folder).map_err(std::io::Error::other)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            folder: Some(folder.into()),
            shown: folder.display().to_string().into(),
            part_bytes: FOLDER_PART_BYTES,
        })
    }

    /// The folder, if it is one: there is room for what is on its way, too.
    pub fn folder(&self) -> Option<PathBuf> {
        self.folder.as_deref().map(Path::to_owned)
    }

    /// Stores so many bytes, read piece by piece. An object of this size that is there already is left alone: its key says what
    /// it is.
    ///
    /// # Errors
    /// If the storage, or what is read from, fails; then nothing is stored.
    pub async fn put(&self, key: &str, mut from: impl AsyncRead + Unpin, size_bytes: u64) -> Result<(), Error> {
        let error = failed("storing a file");
        let key = name(key).map_err(&error)?;
        match self.store.head(&key).await {
            Ok(there) if there.size == size_bytes => return Ok(()),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(error(source)),
        }
        if size_bytes <= self.part_bytes as u64 {
            let all = piece(&mut from, self.part_bytes).await.map_err(&error)?;
            self.store.put(&key, PutPayload::from_bytes(all)).await.map_err(&error)?;
            return Ok(());
        }
        let mut upload = Upload(Some(self.store.put_multipart(&key).await.map_err(&error)?));
        while let Some(parts) = &mut upload.0 {
            let part = piece(&mut from, self.part_bytes).await.map_err(&error)?;
            if part.is_empty() {
                parts.complete().await.map_err(&error)?;
                upload.0 = None;
            } else {
                parts.put_part(PutPayload::from_bytes(part)).await.map_err(&error)?;
            }
        }
        Ok(())
    }

    /// Stores a few bytes and deletes them: whether the storage takes anything at all.
    ///
    /// # Errors
    /// If it does not.
    pub async fn probe(&self) -> Result<(), Error> {
        let error = failed("trying the storage");
        let key = name(PROBE).map_err(&error)?;
        self.store.put(&key, PutPayload::from_static(&[0; 64])).await.map_err(&error)?;
        match self.store.delete(&key).await {
            // Another process tries it at the same time.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(error(source)),
        }
    }

    /// How large an object is; `None` if it is not there.
    ///
    /// # Errors
    /// If the storage fails.
    pub async fn size_bytes(&self, key: &str) -> Result<Option<u64>, Error> {
        let error = failed("looking for a file");
        match self.store.head(&name(key).map_err(&error)?).await {
            Ok(there) => Ok(Some(there.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(error(source)),
        }
    }

    /// Reads an object or a part of it, piece by piece; `None` if it is not there.
    ///
    /// # Errors
    /// If the storage fails, or the part lies outside it.
    pub async fn read(&self, key: &str, part: Option<Range<u64>>) -> Result<Option<Reading>, Error> {
        let error = failed("reading a file");
        let options = GetOptions { range: part.map(GetRange::Bounded), ..GetOptions::default() };
        match self.store.get_opts(&name(key).map_err(&error)?, options).await {
            Ok(found) => Ok(Some(Reading {
                size_bytes: found.meta.size,
                range: found.range.clone(),
                bytes: found.into_stream().map_err(error).boxed(),
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(error(source)),
        }
    }

    /// Deletes objects. One that is not there is deleted already.
    ///
    /// # Errors
    /// If the storage fails; some may be deleted.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Error> {
        let error = failed("deleting a file");
        for key in keys {
            match self.store.delete(&name(key).map_err(&error)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(error(source)),
            }
        }
        Ok(())
    }
}

impl Storage {
    /// Removes what processes that were killed left in a folder; how many files. What they left in a bucket is its owner's to
    /// remove (a rule for uploads that were never completed).
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub async fn sweep(&self) -> std::io::Result<u64> {
        let Some(folder) = self.folder() else { return Ok(0) };
        // As `LocalFileSystem` names what is not yet an object; no key of ours has such a name.
        let is_staged = |name: &str| {
            name.rsplit_once('#').is_some_and(|(_, nth)| !nth.is_empty() && nth.bytes().all(|c| c.is_ascii_digit()))
        };
        let sweeping = move || remove_old(&folder, &is_staged, STAGED_FOR, true);
        tokio::task::spawn_blocking(sweeping).await.map_err(std::io::Error::other)?
    }
}

/// Removes the files with such names in a folder, or also below it, that nobody has written to for so long. How many.
///
/// # Errors
/// If the folder cannot be read.
pub fn remove_old(folder: &Path, is_meant: &dyn Fn(&str) -> bool, age: Duration, deep: bool) -> std::io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What goes while we look is gone.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if deep {
                removed += remove_old(&entry.path(), is_meant, age, deep).unwrap_or_default();
            }
            continue;
        }
        // By the name first: of very many objects nothing else is looked at.
        if !entry.file_name().to_str().is_some_and(is_meant) {
            continue;
        }
        let modified = entry.metadata().and_then(|about| about.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|since| since > age));
        if is_old && std::fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

fn bucket_of(bucket: &str, settings: &StorageArgs) -> Result<Storage, object_store::Error> {
    let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.aws_region)
        .with_client_options(ClientOptions::new().with_timeout_disabled().with_read_timeout(S3_IDLE_TIMEOUT))
        .with_retry(RetryConfig { max_retries: S3_RETRIES, retry_timeout: S3_RETRY_TIMEOUT, ..RetryConfig::default() });
    if let Some(endpoint) = &settings.aws_endpoint_url {
        // Whoever has one of their own has it beside them, perhaps without TLS and without a name for each bucket.
        builder = builder
            .with_endpoint(endpoint.as_str().trim_end_matches('/'))
            .with_allow_http(endpoint.scheme() == "http")
            .with_virtual_hosted_style_request(false);
    }
    if let (Some(id), Some(secret)) = (&settings.aws_access_key_id, &settings.aws_secret_access_key) {
        builder = builder.with_access_key_id(id.expose_secret()).with_secret_access_key(secret.expose_secret());
    }
    if let Some(token) = &settings.aws_session_token {
        builder = builder.with_token(token.expose_secret());
    }
    let store = builder.build()?;
    let store: Arc<dyn ObjectStore> = match name(prefix)? {
        prefix if prefix.as_ref().is_empty() => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Storage { store, folder: None, shown: settings.storage_url.as_str().into(), part_bytes: S3_PART_BYTES })
}

fn name(key: &str) -> Result<Key, object_store::Error> {
    Ok(Key::parse(key)?)
}

/// The next bytes, as many as there may be unless it is the end.
async fn piece(from: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Bytes, object_store::Error> {
    let mut piece = BytesMut::with_capacity(most);
    while piece.len() < most {
        let read = from.take((most - piece.len()) as u64).read_buf(&mut piece).await;
        let read = read.map_err(|source| object_store::Error::Generic { store: "file", source: Box::new(source) })?;
        if read == 0 {
            break;
        }
    }
    Ok(piece.freeze())
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> (tempfile::TempDir, Storage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::in_folder(&folder.path().join("deep/inside")).unwrap();
        (folder, storage)
    }

    async fn all(storage: &Storage, key: &str, part: Option<Range<u64>>) -> Option<Vec<u8>> {
        let reading = storage.read(key, part).await.unwrap()?;
        let pieces: Vec<Bytes> = reading.bytes.try_collect().await.unwrap();
        Some(pieces.concat())
    }

    #[tokio::test]
    async fn what_is_stored_is_read_whole_and_in_parts_and_deleted() {
        let (_folder, storage) = storage();
        // One that goes at once, one in several parts.
        for size in [0, 10, FOLDER_PART_BYTES, 3 * FOLDER_PART_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let key = format!("tenants/1/{size}");
            assert!(all(&storage, &key, None).await.is_none());
            for _ in 0..2 {
                storage.put(&key, &bytes[..], size as u64).await.unwrap();
            }
            assert_eq!(all(&storage, &key, None).await.as_deref(), Some(&bytes[..]));
            assert_eq!(storage.size_bytes(&key).await.unwrap(), Some(size as u64));
            if size > 9 {
                assert_eq!(all(&storage, &key, Some(3..9)).await.as_deref(), Some(&bytes[3..9]));
            }
            storage.delete(&[key.clone(), key.clone()]).await.unwrap();
            assert!(all(&storage, &key, None).await.is_none());
        }
    }

    #[tokio::test]
    async fn what_breaks_off_leaves_nothing_behind() {
        let (_folder, storage) = storage();
        assert!(storage.put("a/b", Broken(2 * FOLDER_PART_BYTES), 3 * FOLDER_PART_BYTES as u64).await.is_err());
        assert!(all(&storage, "a/b", None).await.is_none());
    }

    #[tokio::test]
    async fn what_a_killed_process_left_goes_when_it_is_old_and_nothing_else_does() {
        let (_folder, storage) = storage();
        let names = ["a/key#1", "a/key#22", "a/new#1", "a/key", "a/key#", "a/key#1x"];
        let path = |name: &str| storage.folder().unwrap().join(name);
        std::fs::create_dir(path("a")).unwrap();
        for name in names {
            let file = std::fs::File::create(path(name)).unwrap();
            if name != "a/new#1" {
                file.set_modified(std::time::SystemTime::now() - 2 * STAGED_FOR).unwrap();
            }
        }
        assert_eq!(storage.sweep().await.unwrap(), 2);
        let left: Vec<_> = names.into_iter().filter(|name| path(name).exists()).collect();
        assert_eq!(left, ["a/new#1", "a/key", "a/key#", "a/key#1x"]);
    }

    /// A bucket that begins an upload and never takes its first part; tells the method of each request.
    #[allow(clippy::disallowed_methods, reason = "a server of a test ends with it")]
    async fn silent_bucket() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (told, methods)) = (listener.local_addr().unwrap(), tokio::sync::mpsc::unbounded_channel());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let mut head = vec![0; 2048];
                    let read = stream.read(&mut head).await.unwrap_or_default();
                    let method =
                        String::from_utf8_lossy(&head[..read]).split(' ').next().unwrap_or_default().to_owned();
                    let answer = match method.as_str() {
                        "HEAD" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
                        "POST" => {
                            let body =
                                "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>";
                            let length = body.len();
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                        }
                        "DELETE" => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
                        _ => {
                            let _ = told.send(method);
                            return std::future::pending().await;
                        }
                    };
                    let _ = told.send(method);
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
                });
            }
        });
        (address, methods)
    }

    #[tokio::test]
    async fn an_upload_that_nobody_waits_for_any_more_is_aborted() {
        let (bucket, mut methods) = silent_bucket().await;
        let storage = Storage::open(&StorageArgs {
            storage_url: "s3://bucket".to_owned(),
            aws_endpoint_url: Some(format!("http://{bucket}").parse().unwrap()),
            aws_region: "us-east-1".into(),
            aws_access_key_id: Some("id".into()),
            aws_secret_access_key: Some("secret".into()),
            aws_session_token: None,
        })
        .unwrap();
        let bytes = vec![7; S3_PART_BYTES + 1];
        let mut seen = Vec::new();
        tokio::select! {
            stored = storage.put("a/b", &bytes[..], bytes.len() as u64) => panic!("{stored:?}"),
            () = async {
                while seen.last().is_none_or(|method: &String| method != "PUT") {
                    seen.push(methods.recv().await.unwrap());
                }
            } => {}
        }
        assert_eq!(seen, ["HEAD", "POST", "PUT"]);
        assert_eq!(methods.recv().await.unwrap(), "DELETE");
    }

    /// Gives so many bytes and then fails.
    struct Broken(usize);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            into: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(std::io::Error::other("cut")));
            }
            let some = self.0.min(into.remaining());
            into.put_slice(&vec![7; some]);
            self.0 -= some;
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn settings_that_mean_nothing_are_refused_by_name() {
        let settings = |url: &str| StorageArgs {
            storage_url: url.to_owned(),
            aws_endpoint_url: None,
            aws_region: "us-east-1".into(),
            aws_access_key_id: None,
            aws_secret_access_key: None,
            aws_session_token: None,
        };
        for wrong in ["", "file:", "file://", "ftp://x/y", "/just/a/path"] {
            assert_eq!(Storage::open(&settings(wrong)).unwrap_err().setting, "STORAGE_URL", "{wrong}");
        }
        assert_eq!(Storage::open(&settings("s3://bucket/some/prefix")).unwrap().to_string(), "s3://bucket/some/prefix");
    }
}
