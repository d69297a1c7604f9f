//! libpq's service files: named sets of connection parameters (PostgreSQL manual, 32.17).

use std::path::PathBuf;

/// The folders where packages put the system-wide file: libpq's build fixes its place.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"];

/// A file, and the parameters that it has for a service.
type Found = (PathBuf, Vec<(String, String)>);

/// Returns the file that has a service, and the service's parameters. `file` (PGSERVICEFILE) is read, or else `~/.pg_service.conf`; then the system's file.
pub fn read(name: &str, file: Option<PathBuf>, system_folder: Option<PathBuf>) -> Result<Found, String> {
    if let Some(file) = &file
        && !file.is_file()
    {
        return Err(format!("there is no service file {}", file.display()));
    }
    let of_user = file.or_else(|| std::env::home_dir().map(|home| home.join(".pg_service.conf")));
    let of_system: Vec<PathBuf> = match system_folder {
        Some(folder) => vec![folder],
        None => SYSTEM_FOLDERS.map(PathBuf::from).to_vec(),
    };
    for file in of_user.into_iter().chain(of_system.into_iter().map(|folder| folder.join("pg_service.conf"))) {
        if !file.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        if let Some(found) = section(&text, name).map_err(|mistake| format!("{}: {mistake}", file.display()))? {
            return Ok((file, found));
        }
    }
    Err(format!("no service file has a service `{name}`"))
}

/// Returns the pairs of `[name]`, or `None` when there is no such section. This is pure.
fn section(text: &str, name: &str) -> Result<Option<Vec<(String, String)>>, String> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if section.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
        } else if let Some(found) = &mut found {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("line {} has no `=`", number + 1))?;
            match key {
                "service" | "servicefile" => return Err(format!("line {}: a service cannot name another", number + 1)),
                _ if key.starts_with("ldap") => return Err(format!("line {}: LDAP is not supported", number + 1)),
                _ => found.push((key.to_owned(), value.to_owned())),
            }
        }
    }
    Ok(found.map(|pairs| pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_read_as_libpq_reads_it() {
        let text =
            "host=nobody\n[a]\n host=x y \n# port=1\nport=2\noptions=-c a=b\n[b]\nport=3\n[bad]\nport\n[loop]\nservice=a\n";
        let pairs = |name| section(text, name);
        let expected: Vec<(String, String)> =
            [("host", "x y"), ("port", "2"), ("options", "-c a=b")].map(|(key, value)| (key.into(), value.into())).to_vec();
        assert_eq!(pairs("a").unwrap().unwrap(), expected);
        assert_eq!(pairs("c").unwrap(), None);
        assert!(pairs("bad").unwrap_err().contains("line 10"));
        assert!(pairs("loop").is_err());
    }
}
