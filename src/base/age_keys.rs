//! The keys of age (age-encryption.org): recipients, to whom a store's objects are encrypted, and identities, which open them. Messages about
//! either never show a secret key.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use age::ssh::ParseRecipientKeyError as SshMistake;
use age::{ssh, x25519};

/// Each recipient has up to some 720 bytes in the head of every object, which a reader of a part reads first.
pub const MAX_RECIPIENTS: usize = 20;

/// An RSA key of 4,096 bits has some 730, and a name may follow it.
pub const RECIPIENT_BYTES: usize = 2048;

/// An identity file holds some keys of at most some kB each; a larger one is something else.
pub const IDENTITY_FILE_BYTES: u64 = 1 << 20;

/// What a store encrypts to, and what opens it here.
#[derive(Debug, Default)]
pub struct AgeKeys {
    /// Empty: its objects are not encrypted.
    pub recipients: Vec<Recipient>,
    /// None where no identity file is configured.
    pub identities: Option<Identities>,
    /// Names in manifests are encrypted, too.
    pub seals_manifests: bool,
}

impl AgeKeys {
    /// Returns why this host cannot open what it encrypts; `None` when it can.
    pub fn cannot_open_own(&self) -> Option<String> {
        let Some(identities) = &self.identities else { return Some(NO_IDENTITY.to_owned()) };
        let opens = self.recipients.iter().any(|recipient| identities.public_keys().any(|key| key == recipient.key()));
        (!opens).then(|| format!("no key of {} belongs to a recipient of `encrypt_to`", identities.file.display()))
    }
}

/// The reason where a store has no identities.
pub const NO_IDENTITY: &str = "the store has no `identity_file` here";

/// A public key, as it was written: `age1…`, `ssh-ed25519 AAAA… name`, `ssh-rsa AAAA… name`.
#[derive(Clone, Debug)]
pub struct Recipient {
    written: String,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    X25519(x25519::Recipient),
    Ssh(Box<ssh::Recipient>),
}

impl Recipient {
    /// The error continues a sentence about the text, and does not show it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written = text.trim();
        let public = match written {
            _ if is_secret(written) => {
                return Err("is a secret key, and must be a public one: `age-keygen -y FILE` prints it".to_owned());
            }
            _ if written.len() > RECIPIENT_BYTES => return Err(format!("is longer than {RECIPIENT_BYTES} bytes")),
            _ if written.starts_with("ssh-") => Public::Ssh(Box::new(ssh::Recipient::from_str(written).map_err(of_ssh)?)),
            // Keys of the kinds age1tag1…, age1pq1…, age1NAME1… have a second part to their name.
            _ if written.starts_with("age1") && written[4..].contains('1') => {
                return Err("is a key of a plugin or of a newer kind, which pgtend does not know: age1… of `age-keygen`, ssh-ed25519 and ssh-rsa are taken".to_owned());
            }
            _ => {
                let parsed = x25519::Recipient::from_str(written);
                Public::X25519(parsed.map_err(|_| {
                    "is not a public key of age or OpenSSH, or not all of one: age1…, ssh-ed25519 AAAA…, ssh-rsa AAAA…".to_owned()
                })?)
            }
        };
        Ok(Self { written: written.to_owned(), public })
    }

    pub fn as_age(&self) -> &dyn age::Recipient {
        match &self.public {
            Public::X25519(recipient) => recipient,
            Public::Ssh(recipient) => recipient.as_ref(),
        }
    }

    /// Returns the key without the name that may follow it.
    pub fn key(&self) -> String {
        match &self.public {
            Public::X25519(recipient) => recipient.to_string(),
            Public::Ssh(recipient) => recipient.to_string(),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The start of a secret key of age.
pub const SECRET_KEY: &str = "AGE-SECRET-KEY-";

/// Returns whether there is a secret key in a text, which must not be shown.
pub fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    text.contains(SECRET_KEY) || text.contains("PRIVATE KEY")
}

fn of_ssh(mistake: SshMistake) -> String {
    match mistake {
        SshMistake::RsaModulusTooSmall => "is an RSA key of less than 2,048 bits, which is too weak".to_owned(),
        SshMistake::RsaModulusTooLarge => "is an RSA key of more than 4,096 bits, which age does not take".to_owned(),
        SshMistake::Unsupported(kind) => {
            format!("is a key of the kind {kind}, which age does not take: ssh-ed25519 and ssh-rsa are")
        }
        _ => "is not a public key of OpenSSH, or not all of one: `ssh-ed25519 AAAA…`, as in its .pub file".to_owned(),
    }
}

/// Reads recipients as `age -R` does: one on each line, with comments after `#`. The error names the line.
pub fn recipients_of(text: &str) -> Result<Vec<Recipient>, String> {
    let mut recipients = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        recipients.push(Recipient::parse(line).map_err(|why| format!("its line {} {why}", number + 1))?);
    }
    Ok(recipients)
}

/// Shortens a recipient for a line: an SSH key by its end and its name.
pub fn in_short(written: &str) -> String {
    let mut words = written.split_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else { return written.to_owned() };
    let end: String = key.chars().skip(key.chars().count().saturating_sub(8)).collect();
    let name = words.next().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{kind} …{end}{name}")
}

/// The secret keys of an identity file.
pub struct Identities {
    pub file: PathBuf,
    keys: Vec<Secret>,
}

enum Secret {
    X25519(x25519::Identity),
    Ssh { identity: Box<ssh::Identity>, public: String },
}

impl Identities {
    /// Reads an identity file as `age -i` does: lines AGE-SECRET-KEY-…, or a private key of OpenSSH. The error continues a sentence about the
    /// file, and shows nothing of it.
    pub fn parse(file: PathBuf, text: &str) -> Result<Self, String> {
        if text.contains("age-encryption.org/v1") || text.contains("BEGIN AGE ENCRYPTED FILE") {
            return Err("is encrypted with a passphrase, which nobody can enter in a run: decrypt it with `age -d`".to_owned());
        }
        if text.trim_start().starts_with("-----BEGIN ") {
            // What follows the first would be left out, as by age: its owner would believe that the file has it.
            if text.matches("-----BEGIN ").count() > 1 || text.contains(SECRET_KEY) {
                return Err("has more than one key: of OpenSSH's private keys, a file has one alone".to_owned());
            }
            return Ok(Self { file, keys: vec![of_openssh(text)?] });
        }
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with("AGE-PLUGIN-") {
                return Err(format!("has a key of a plugin in line {}, and pgtend runs no plugins", number + 1));
            }
            let key = x25519::Identity::from_str(line);
            keys.push(Secret::X25519(
                key.map_err(|_| format!("has something else than a secret key of age in line {}", number + 1))?,
            ));
        }
        if keys.is_empty() {
            return Err("has no secret key: `age-keygen` writes one, AGE-SECRET-KEY-…".to_owned());
        }
        Ok(Self { file, keys })
    }

    pub fn as_age(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.keys.iter().map(|key| match key {
            Secret::X25519(identity) => identity as &dyn age::Identity,
            Secret::Ssh { identity, .. } => identity.as_ref() as &dyn age::Identity,
        })
    }

    /// Returns the recipients that these keys open, without names.
    pub fn public_keys(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| match key {
            Secret::X25519(identity) => identity.to_public().to_string(),
            Secret::Ssh { public, .. } => public.clone(),
        })
    }
}

/// Shows the public keys only.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Identities")
            .field("file", &self.file)
            .field("public_keys", &self.public_keys().collect::<Vec<_>>())
            .finish()
    }
}

fn of_openssh(text: &str) -> Result<Secret, String> {
    let not_one = || "is not a private key of OpenSSH, or not all of one".to_owned();
    let identity = ssh::Identity::from_buffer(text.as_bytes(), None).map_err(|_| not_one())?;
    match &identity {
        ssh::Identity::Unencrypted(_) => {}
        ssh::Identity::Encrypted(_) => {
            return Err("has a passphrase, which nobody can enter in a run: `ssh-keygen -p` removes it from a copy".to_owned());
        }
        ssh::Identity::Unsupported(_) => {
            return Err("is a key of a kind that age does not take: ssh-ed25519 and ssh-rsa are".to_owned());
        }
    }
    let public = ssh::Recipient::try_from(identity.clone()).map_err(|_| not_one())?.to_string();
    Ok(Secret::Ssh { identity: Box::new(identity), public })
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_that_is_none_is_told_why_and_a_secret_one_is_never_shown() {
        let secret = x25519::Identity::generate().to_string().expose_secret().to_owned();
        let public = x25519::Identity::generate().to_public().to_string();
        for (text, says) in [
            ("", "is not a public key"),
            (&public[..40], "is not a public key"),
            ("age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "of a plugin"),
            ("ssh-ed25519 AAAA", "is not a public key of OpenSSH"),
            (&secret, "is a secret key"),
            (&secret.to_lowercase(), "is a secret key"),
        ] {
            let why = Recipient::parse(text).unwrap_err();
            assert!(why.contains(says) && !why.contains("SECRET-KEY-1"), "{text}: {why}");
        }
        let why = recipients_of(&format!("# people\n\n{public}\nnonsense\n")).unwrap_err();
        assert!(why.starts_with("its line 4 is not"), "{why}");
        for (text, says) in [
            ("", "has no secret key"),
            (&*format!("{secret}\nAGE-SECRET-KEY-1X"), "in line 2"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "is not a private key of OpenSSH"),
            ("age-encryption.org/v1\n-> scrypt x 18\n", "with a passphrase"),
            ("AGE-PLUGIN-YUBIKEY-1QQQ", "runs no plugins"),
            (
                &*format!("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n{secret}\n"),
                "more than one key",
            ),
        ] {
            let why = Identities::parse("key".into(), text).unwrap_err();
            assert!(why.contains(says) && !why.contains("SECRET-KEY-1"), "{text}: {why}");
        }
    }

    #[test]
    fn a_host_opens_what_it_writes_when_one_of_its_keys_is_a_recipient() {
        let (own, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let recipients = |of: &x25519::Identity| vec![Recipient::parse(&of.to_public().to_string()).unwrap()];
        let identities = || Some(Identities::parse("key".into(), own.to_string().expose_secret()).unwrap());
        let keys = |of| AgeKeys { recipients: recipients(of), identities: identities(), seals_manifests: false };
        assert_eq!(keys(&own).cannot_open_own(), None);
        let keys = keys(&other);
        assert!(keys.cannot_open_own().unwrap().contains("no key of key belongs"));
        let debug = format!("{keys:?}");
        assert!(!debug.contains("SECRET") && debug.contains(&own.to_public().to_string()), "{debug}");
    }

    #[test]
    fn an_ssh_key_is_shown_by_its_end_and_its_name() {
        assert_eq!(in_short("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW ops@db1"), "ssh-ed25519 …LqeplhpW ops@db1");
        assert_eq!(in_short("age1xyz"), "age1xyz");
    }
}
