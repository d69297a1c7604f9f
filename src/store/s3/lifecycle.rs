//! Lifecycle rules of the bucket: which objects of the store they delete or move, and when.

use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, Tag};

use super::S3;
use crate::store::archived::Class;
use crate::store::tags::OWN;

/// A rule of the bucket by which objects of the store go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub rule: String,
    pub days: u32,
}

/// A rule of the bucket that moves objects of the store to where they must be thawed before they can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archiving {
    pub rule: String,
    pub days: u32,
    pub class: Class,
}

impl S3 {
    /// The lifecycle rule by which objects of this store go first; None where there is none, or where that may not be asked.
    pub async fn expiry(&self) -> Option<Expiry> {
        let own = self.full_key("");
        self.rules()
            .await
            .iter()
            .filter_map(|rule| expiry_of(rule, &own, self.configured.tag_proved))
            .min_by_key(|expiry| expiry.days)
    }

    /// The lifecycle rule that moves objects of this store first to where they must be thawed before they can be read.
    pub async fn archiving(&self) -> Option<Archiving> {
        let own = self.full_key("");
        self.rules().await.iter().filter_map(|rule| archiving_of(rule, &own)).min_by_key(|archiving| archiving.days)
    }

    /// The bucket's lifecycle rules; none where they may not be read.
    async fn rules(&self) -> Vec<LifecycleRule> {
        self.rules_if_readable().await.unwrap_or_default()
    }

    /// The same; None where they may not be read.
    async fn rules_if_readable(&self) -> Option<Vec<LifecycleRule>> {
        let request = self.client.get_bucket_lifecycle_configuration().bucket(&self.configured.bucket);
        match request.send().await {
            Ok(answer) => Some(answer.rules.unwrap_or_default()),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Some(Vec::new()),
            Err(error) => {
                tracing::debug!("cannot ask which lifecycle rules the bucket has: {:#}", self.explain(error));
                None
            }
        }
    }

    /// Returns whether a lifecycle rule moves objects of this store that have a tag of pgtend; None where no rules may be read.
    pub async fn moves_tagged(&self) -> Option<bool> {
        let own = self.full_key("");
        let moves = |rule: &LifecycleRule| !rule.transitions().is_empty() && is_for(rule, &own) && has_own_tag(rule);
        Some(self.rules_if_readable().await?.iter().any(moves))
    }
}

/// The expiry by a rule that takes all objects below a prefix which `own` is in, or which is in it; `has_tags`: also if it takes those that pgtend has tagged.
fn expiry_of(rule: &LifecycleRule, own: &str, has_tags: bool) -> Option<Expiry> {
    let days = u32::try_from(rule.expiration()?.days()?).ok()?;
    let is_meant = is_for(rule, own) && !has_others_tag(rule) && (has_tags || !has_own_tag(rule));
    is_meant.then(|| Expiry { rule: name_of(rule), days })
}

fn archiving_of(rule: &LifecycleRule, own: &str) -> Option<Archiving> {
    let moves = rule.transitions().iter().filter_map(|to| {
        let class = Class::of(to.storage_class()?.as_str())?;
        Some(Archiving { rule: name_of(rule), days: u32::try_from(to.days().unwrap_or_default()).ok()?, class })
    });
    moves.min_by_key(|archiving| archiving.days).filter(|_| is_for(rule, own) && !has_others_tag(rule) && !has_own_tag(rule))
}

fn name_of(rule: &LifecycleRule) -> String {
    rule.id().unwrap_or("without a name").to_owned()
}

/// Returns whether a rule is for objects below a prefix which `own` is in, or which is in it, whatever their tags are.
fn is_for(rule: &LifecycleRule, own: &str) -> bool {
    let filter = rule.filter();
    let of_filter = filter.and_then(|filter| filter.prefix().or_else(|| filter.and()?.prefix()));
    #[expect(deprecated, reason = "rules that were made long ago have it")]
    let prefix = of_filter.or(rule.prefix()).unwrap_or_default();
    let is_ours = own.starts_with(prefix) || prefix.starts_with(own);
    *rule.status() == ExpirationStatus::Enabled && is_ours
}

/// Returns whether a rule takes only objects with a tag of pgtend.
fn has_own_tag(rule: &LifecycleRule) -> bool {
    tags(rule).iter().any(|tag| tag.key().starts_with(OWN))
}

/// Returns whether a rule takes only objects with tags that pgtend never gives.
fn has_others_tag(rule: &LifecycleRule) -> bool {
    tags(rule).iter().any(|tag| !tag.key().starts_with(OWN))
}

fn tags(rule: &LifecycleRule) -> Vec<&Tag> {
    let Some(filter) = rule.filter() else { return Vec::new() };
    filter.tag().into_iter().chain(filter.and().into_iter().flat_map(|and| and.tags())).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRuleFilter};

    use super::*;

    #[test]
    fn a_rule_counts_that_takes_objects_of_the_store() {
        let rule = |filter: LifecycleRuleFilter, status: ExpirationStatus| {
            let expiration = LifecycleExpiration::builder().days(7).build();
            LifecycleRule::builder().id("r").filter(filter).status(status).expiration(expiration).build().unwrap()
        };
        let below = |prefix: &str| LifecycleRuleFilter::builder().prefix(prefix).build();
        let tagged = |key: &str| {
            let tag = Tag::builder().key(key).value("restore").build().unwrap();
            rule(LifecycleRuleFilter::builder().tag(tag).build(), ExpirationStatus::Enabled)
        };
        let found = Expiry { rule: "r".to_owned(), days: 7 };
        for (rule, expected) in [
            (rule(below(""), ExpirationStatus::Enabled), Some(found.clone())),
            (rule(below("prod/"), ExpirationStatus::Enabled), Some(found.clone())),
            (rule(below("prod/app/"), ExpirationStatus::Enabled), Some(found)),
            (rule(below("logs/"), ExpirationStatus::Enabled), None),
            (rule(below(""), ExpirationStatus::Disabled), None),
            (tagged("a"), None),
            (tagged("pgtend-proved"), None),
        ] {
            assert_eq!(expiry_of(&rule, "prod/", false), expected, "{rule:?}");
        }
        assert!(expiry_of(&tagged("pgtend-proved"), "prod/", true).is_some(), "it deletes what pgtend has tagged");
        assert!(expiry_of(&tagged("a"), "prod/", true).is_none());
    }
}
