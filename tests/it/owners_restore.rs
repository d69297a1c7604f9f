//! Restores in which another role becomes the owner of what a role of the source wrote: code that runs as its owner must not get rights over others by it.

use crate::support::Scenario;
use crate::support::owners::Owned;

const BECOMES: &str = "CREATE FUNCTION becomes() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text'";

/// The usual logins: one that `grants` made a member of owners, one that monitors, and the administrator of a managed server, who made the other roles.
#[test]
fn a_restore_gives_an_owner_of_the_source_no_rights_over_owners_that_the_new_owner_is_a_member_of() {
    for major in [14, 15, 16, 18] {
        let owned = Owned::with(major, BECOMES);
        let Owned { server, database, owner } = &owned;
        let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"checksum\"");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let (copy, login, victim) = (format!("{database}_taken"), format!("login_{database}"), format!("victim_{database}"));
        owned.sql(&format!("CREATE ROLE {victim} LOGIN"));
        let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{copy}'");
        let (as_login, as_superuser, mapped) = (server.url_as(&login, &copy), server.url(&copy), format!("{owner}={login}"));
        let ways = [(&as_superuser, &["--role-map", &mapped][..]), (&as_login, &["--no-owner"])];
        let with = |grants: &str| {
            owned.sql(&format!("DROP ROLE IF EXISTS {login}; CREATE ROLE {login} LOGIN CREATEDB; {grants}"));
        };
        for (grants, why) in [
            (format!("GRANT {victim} TO {login}"), format!("is a member of \"{victim}\"")),
            // The ADMIN OPTION is enough: since 16 it comes to whoever created the role.
            (format!("GRANT {victim} TO {login} WITH ADMIN OPTION"), format!("is a member of \"{victim}\"")),
            (format!("GRANT pg_monitor TO {login}"), "is a member of \"pg_monitor\"".to_owned()),
            (format!("GRANT pg_signal_backend TO {login}"), "is a member of \"pg_signal_backend\"".to_owned()),
        ] {
            with(&grants);
            for (url, option) in &ways {
                let restore = [&["backups", "restore", "latest", "--into", *url, "--create"], *option].concat();
                scenario.run(&restore).exited(77).says(&[owner, &format!("(to {login}, which {why}"), "--trust-owners"]);
                assert_eq!(server.sql("postgres", &exists), "0");
            }
        }
        if major >= 16 {
            owned.sql(&format!(
                "DROP ROLE {login}; CREATE ROLE {login} LOGIN CREATEDB CREATEROLE; SET ROLE {login}; CREATE ROLE made_{database}"
            ));
            let restore = ["backups", "restore", "latest", "--into", &as_login, "--create", "--no-owner"];
            scenario.run(&restore).exited(77).says(&[&format!("which is a member of \"made_{database}\"")]);
            owned.sql(&format!("DROP ROLE made_{database}"));
        }
        // A right that the owner has itself is no gain.
        with(&format!("GRANT {owner}, {victim} TO {login}; GRANT {victim} TO {owner}"));
        scenario.run(&["backups", "restore", "latest", "--into", &as_login, "--create", "--no-owner"]).succeeded();
        server.drop_with_test(&copy);
    }
}
