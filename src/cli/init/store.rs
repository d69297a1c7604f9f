//! Where backups go, as `--store` and a person say it.

use super::text::NewStore;

/// Reads `DIR` or `s3://BUCKET/PREFIX?region=…&endpoint=…`. Credentials are refused: they come by the AWS default chain.
pub fn parse(text: &str) -> Result<NewStore, String> {
    let text = text.trim();
    let Some(address) = text.strip_prefix("s3://") else {
        return match text.split_once("://") {
            Some((scheme, _)) => Err(format!(
                "`{scheme}://` is neither a folder nor s3://BUCKET/PREFIX; for Azure and Google, add the store by hand: \
                 docs/howto/azure-and-google.md"
            )),
            None if text.is_empty() => Err("name a folder, or s3://BUCKET/PREFIX".to_owned()),
            None => Ok(NewStore::Dir(text.to_owned())),
        };
    };
    let (place, query) = address.split_once('?').unwrap_or((address, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_of_a_bucket = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    if bucket.is_empty() || !bucket.chars().all(is_of_a_bucket) {
        return Err("s3:// is followed by the bucket's name, as in s3://my-backups/prod".to_owned());
    }
    let (mut region, mut endpoint) = (None, None);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "region" => region = Some(value.into_owned()),
            "endpoint" => endpoint = Some(value.into_owned()),
            _ => {
                return Err(
                    "s3:// takes ?region=… and &endpoint=…; credentials come from the environment or a profile".to_owned()
                );
            }
        }
    }
    Ok(NewStore::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned(), region, endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_folder_or_a_bucket() {
        assert_eq!(parse("/backups/pg"), Ok(NewStore::Dir("/backups/pg".to_owned())));
        assert_eq!(
            parse("s3://b/x/y/?endpoint=http%3A%2F%2Flocalhost%3A9000&region=eu"),
            Ok(NewStore::S3 {
                bucket: "b".to_owned(),
                prefix: "x/y".to_owned(),
                region: Some("eu".to_owned()),
                endpoint: Some("http://localhost:9000".to_owned())
            })
        );
        for (wrong, says) in [
            ("", "folder"),
            ("s3://", "bucket"),
            ("s3://key:secret@b", "bucket"),
            ("gs://b", "Google"),
            ("s3://b?secret=x", "environment"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(says) && !error.contains("secret@"), "{wrong}: {error}");
        }
    }
}
