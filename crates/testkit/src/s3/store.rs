//! What stores the objects: `s3s-fs`, with what it does otherwise than S3 mended.
//!
//! - An empty `delimiter=` is none; it takes it for a delimiter, and restic's check finds nothing then.
//! - Conditional puts, completions, removals and listings are one at a time; it races them, and fails a listing in which
//!   something is removed.
//! - Conditions of reads are honoured; it ignores them.
//! - A bucket has to be there; it makes one with the first object.
//! - A read reads what is asked for at once; it hashes the whole object first, and reads in steps of 4 KiB.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag, ETagCondition,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, ListPartsInput, ListPartsOutput, Object, PutObjectInput, PutObjectOutput, Timestamp,
    UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::Mutex;

use super::Lifecycles;
use super::faults::S3Faults;

type Answer<T> = S3Result<S3Response<T>>;

pub(super) struct Store {
    files: FileSystem,
    root: PathBuf,
    faults: S3Faults,
    lifecycles: Lifecycles,
    one_at_a_time: Mutex<()>,
    etags: std::sync::Mutex<HashMap<PathBuf, (Stamp, ETag)>>,
}

/// What changes with an object's content: length, inode, and when it was written.
type Stamp = (u64, u64, i64, i64);

impl Store {
    pub(super) fn new(files: FileSystem, root: &Path, faults: &S3Faults, lifecycles: &Lifecycles) -> Self {
        Self {
            files,
            root: root.to_owned(),
            faults: faults.clone(),
            lifecycles: Arc::clone(lifecycles),
            one_at_a_time: Mutex::default(),
            etags: std::sync::Mutex::default(),
        }
    }

    fn need_bucket(&self, bucket: &str) -> S3Result<()> {
        match self.root.join(bucket).is_dir() {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
        }
    }

    /// An object's tag, which the library hashes its content for where it was not written by it: once.
    async fn etag(&self, path: PathBuf, stamp: Stamp, req: S3Request<HeadObjectInput>) -> S3Result<ETag> {
        let known = |tags: &HashMap<PathBuf, (Stamp, ETag)>| {
            let known = tags.get(&path).filter(|(then, _)| *then == stamp);
            known.map(|(_, tag)| tag.clone())
        };
        if let Some(tag) = known(&self.etags.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(tag);
        }
        let head = self.files.head_object(req).await?;
        let tag = head.output.e_tag.ok_or_else(|| s3_error!(InternalError))?;
        let mut tags = self.etags.lock().unwrap_or_else(PoisonError::into_inner);
        tags.insert(path, (stamp, tag.clone()));
        Ok(tag)
    }

    fn only_listed(&self, contents: &mut Option<Vec<Object>>) {
        if let Some(objects) = contents {
            objects.retain(|object| object.key.as_deref().is_none_or(|key| self.faults.lists(key)));
        }
    }
}

/// Objects of a repository are some megabytes, so that the whole of what is asked for is read at once.
fn read(file: &File, asked: &std::ops::Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(asked.end - asked.start).map_err(io::Error::other)?;
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, asked.start)?;
    Ok(content.into())
}

/// Holds an object against the conditions of a read.
fn meets(
    etag: Option<&ETag>,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => etag.is_some(),
        ETagCondition::ETag(wanted) => etag.is_some_and(|etag| etag.value() == wanted.value()),
    };
    if if_match.is_some_and(|condition| !is(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.need_bucket(&req.input.bucket)?;
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let path = self.root.join(&bucket).join(&key);
        // What the library makes of such names is its own affair, and the answer is its too.
        let plain = key.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let Some(file) = plain.then(|| File::open(&path).ok()).flatten() else {
            return self.files.get_object(req).await;
        };
        let found = file.metadata().ok().filter(std::fs::Metadata::is_file);
        let meta = found.ok_or_else(|| s3_error!(NoSuchKey))?;
        let (range, if_match) = (req.input.range, req.input.if_match.clone());
        let if_none_match = req.input.if_none_match.clone();
        let asked = match range {
            Some(range) => range.check(meta.len())?,
            None => 0..meta.len(),
        };
        let stamp = (meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec());
        let head = HeadObjectInput::builder().bucket(bucket).key(key).build();
        let head = head.map_err(|_| s3_error!(InternalError))?;
        let etag = self.etag(path, stamp, req.map_input(|_| head)).await?;
        meets(Some(&etag), if_match.as_ref(), if_none_match.as_ref())?;
        // Who asks for a range is told which one it got, also where that is all.
        let content_range = range.map(|_| {
            let last = asked.end.saturating_sub(1);
            format!("bytes {}-{last}/{}", asked.start, meta.len())
        });
        let content = read(&file, &asked).map_err(|_| s3_error!(InternalError))?;
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(content.len()).ok(),
            content_range,
            body: Some(Body::from(content).into()),
            last_modified: meta.modified().ok().map(Timestamp::from),
            e_tag: Some(etag),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.need_bucket(&req.input.bucket)?;
        let (if_match, if_none_match) = (req.input.if_match.clone(), req.input.if_none_match.clone());
        let found = self.files.head_object(req).await?;
        meets(
            found.output.e_tag.as_ref(),
            if_match.as_ref(),
            if_none_match.as_ref(),
        )?;
        Ok(found)
    }

    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.need_bucket(&req.input.bucket)?;
        if !self.faults.honours_conditions() {
            req.input.if_match = None;
            req.input.if_none_match = None;
        }
        let conditional = req.input.if_match.is_some() || req.input.if_none_match.is_some();
        let _alone = match conditional {
            true => Some(self.one_at_a_time.lock().await),
            false => None,
        };
        let key = req.input.key.clone();
        let done = self.files.put_object(req).await?;
        self.faults.wrote(&key);
        Ok(done)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.need_bucket(&req.input.bucket)?;
        let _alone = self.one_at_a_time.lock().await;
        self.files.delete_object(req).await
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        self.need_bucket(&req.input.bucket)?;
        let _alone = self.one_at_a_time.lock().await;
        self.files.delete_objects(req).await
    }

    async fn list_objects(&self, mut req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        req.input.delimiter = req.input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let _alone = self.one_at_a_time.lock().await;
        let mut listed = self.files.list_objects(req).await?;
        self.only_listed(&mut listed.output.contents);
        Ok(listed)
    }

    async fn list_objects_v2(&self, mut req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        req.input.delimiter = req.input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let _alone = self.one_at_a_time.lock().await;
        let mut listed = self.files.list_objects_v2(req).await?;
        self.only_listed(&mut listed.output.contents);
        Ok(listed)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.files.head_bucket(req).await
    }

    /// Whether there are any: `answer` puts the text of the bucket's own in.
    async fn get_bucket_lifecycle_configuration(
        &self,
        req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> Answer<GetBucketLifecycleConfigurationOutput> {
        self.need_bucket(&req.input.bucket)?;
        let lifecycles = self.lifecycles.lock().unwrap_or_else(PoisonError::into_inner);
        match lifecycles.contains_key(&req.input.bucket) {
            true => Ok(S3Response::new(GetBucketLifecycleConfigurationOutput::default())),
            false => Err(s3_error!(
                NoSuchLifecycleConfiguration,
                "The lifecycle configuration does not exist"
            )),
        }
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.files.get_bucket_location(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.need_bucket(&req.input.bucket)?;
        self.files.create_multipart_upload(req).await
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.files.upload_part(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.files.list_parts(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let _alone = self.one_at_a_time.lock().await;
        let key = req.input.key.clone();
        let done = self.files.complete_multipart_upload(req).await?;
        self.faults.wrote(&key);
        Ok(done)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.files.abort_multipart_upload(req).await
    }
}
