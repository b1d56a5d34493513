//! A bucket's lifecycle rules are asked for with the repository's own key.

use reseed_backend_restic::s3::lifecycle::{Answer, ask, harms};
use reseed_backend_restic::s3::{CredentialsFrom, S3Credentials};
use reseed_testkit::s3::{S3Fault, S3Op, S3Rule};

use crate::lab::*;

fn asked(it: &S3Lab, key: S3Credentials) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(ask(&it.place(), &CredentialsFrom::Given(key)))
        .map_err(|error| kind(&error))
}

#[test]
fn the_rules_of_a_bucket_are_read_with_its_own_key() {
    let it = S3Lab::bare();
    assert_eq!(
        asked(&it, it.key()),
        Ok(Answer::Rules(Vec::new())),
        "a bucket without rules"
    );
    it.location.server().set_lifecycle(
        &it.place().bucket,
        "<Rule><ID>cheap</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status><Transition><Days>30</Days>\
         <StorageClass>GLACIER</StorageClass></Transition><Expiration><Days>90</Days></Expiration></Rule>\
         <Rule><ID>versions</ID><Filter/><Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>30\
         </NoncurrentDays></NoncurrentVersionExpiration></Rule>",
    );
    let Ok(Answer::Rules(rules)) = asked(&it, it.key()) else {
        panic!("the rules were not told");
    };
    assert_eq!(rules.len(), 2);
    let found: Vec<String> = harms(&rules, &it.place())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("\"cheap\" deletes every object of the bucket that is 90 days old"),
        "{found:?}"
    );
    assert!(found[1].contains("GLACIER"), "{found:?}");
}

/// Not knowing is not "no rules".
#[test]
fn what_keeps_the_rules_from_being_read_is_told() {
    let it = S3Lab::bare();
    let wrong = S3Credentials::new(&it.location.access().access_key_id, "wrong");
    assert_eq!(asked(&it, wrong), Err("credentials".to_owned()));
    for (fault, wanted) in [
        (S3Fault::EXPIRED, "credentials_expired"),
        (S3Fault::NO_BUCKET, "no_bucket"),
        (S3Fault::INTERNAL, "unreachable"),
        (S3Fault::Reset, "unreachable"),
        (S3Fault::NotS3(404), "wrong_endpoint"),
        (S3Fault::NotS3(200), "unreadable"),
    ] {
        let _rule = it.faults().add(S3Rule::on(S3Op::Other, fault.clone()));
        assert_eq!(asked(&it, it.key()), Err(wanted.to_owned()), "{fault:?}");
    }
    let unknown = S3Fault::Error {
        status: 501,
        code: "NotImplemented",
        message: "not here",
    };
    for fault in [S3Fault::DENIED, unknown] {
        let _rule = it.faults().add(S3Rule::on(S3Op::Other, fault.clone()));
        let told = asked(&it, it.key());
        assert!(matches!(told, Ok(Answer::Untold { .. })), "{fault:?}: {told:?}");
    }
}
