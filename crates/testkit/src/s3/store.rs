//! What stores the objects: `s3s-fs`, with what it does otherwise than S3 mended.
//!
//! - An empty `delimiter=` is none; it takes it for a delimiter, and restic's check finds nothing then.
//! - Conditional puts, completions, removals and listings are one at a time; it races them, and fails a listing in which
//!   something is removed.
//! - Conditions of reads are honoured; it ignores them.
//! - A bucket has to be there; it makes one with the first object.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag, ETagCondition,
    GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput, GetBucketLocationInput,
    GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, ListPartsInput, ListPartsOutput, Object, PutObjectInput, PutObjectOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
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
}

impl Store {
    pub(super) fn new(files: FileSystem, root: &Path, faults: &S3Faults, lifecycles: &Lifecycles) -> Self {
        Self {
            files,
            root: root.to_owned(),
            faults: faults.clone(),
            lifecycles: Arc::clone(lifecycles),
            one_at_a_time: Mutex::default(),
        }
    }

    fn need_bucket(&self, bucket: &str) -> S3Result<()> {
        match self.root.join(bucket).is_dir() {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
        }
    }

    fn only_listed(&self, contents: &mut Option<Vec<Object>>) {
        if let Some(objects) = contents {
            objects.retain(|object| object.key.as_deref().is_none_or(|key| self.faults.lists(key)));
        }
    }
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
        let (if_match, if_none_match) = (req.input.if_match.clone(), req.input.if_none_match.clone());
        let found = self.files.get_object(req).await?;
        meets(
            found.output.e_tag.as_ref(),
            if_match.as_ref(),
            if_none_match.as_ref(),
        )?;
        Ok(found)
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
