//! Tags of objects.

use anyhow::{Context as _, Result};
use aws_sdk_s3::types::{Tag, Tagging};

use super::S3;
use crate::store::tags::OWN;

impl S3 {
    pub fn tags_proved(&self) -> bool {
        self.configured.tag_proved
    }

    /// Replaces the tags of pgtend by `own`; those of others stay. Returns whether it was changed.
    pub async fn tag(&self, key: &str, mut own: Vec<(String, String)>) -> Result<bool> {
        let request = self.client.get_object_tagging().bucket(&self.configured.bucket).key(self.full_key(key));
        let there = request.send().await.map_err(|error| self.explain(error))?.tag_set;
        let (mut before, others): (Vec<Tag>, Vec<Tag>) = there.into_iter().partition(|tag| tag.key().starts_with(OWN));
        before.sort_by(|a, b| a.key().cmp(b.key()));
        own.sort();
        if before.iter().map(|tag| (tag.key(), tag.value())).eq(own.iter().map(|(key, value)| (&**key, &**value))) {
            return Ok(false);
        }
        let mut tags = others;
        for (key, value) in own {
            tags.push(Tag::builder().key(key).value(value).build().context("a tag")?);
        }
        if tags.is_empty() {
            let request = self.client.delete_object_tagging().bucket(&self.configured.bucket).key(self.full_key(key));
            request.send().await.map_err(|error| self.explain(error))?;
            return Ok(true);
        }
        let tagging = Tagging::builder().set_tag_set(Some(tags)).build().context("tags")?;
        let request = self.client.put_object_tagging().bucket(&self.configured.bucket).key(self.full_key(key));
        request.tagging(tagging).send().await.map_err(|error| self.explain(error))?;
        Ok(true)
    }
}
