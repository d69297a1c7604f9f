//! A value of 200 MB takes a server some gigabytes while it is written as text and read again: with other tests beside it, machines
//! with little memory killed a server for it.

use crate::support::Scenario;
use crate::support::postgres::server;

#[test]
fn values_of_200_megabytes_come_back() {
    let server = server(17);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE large (id int PRIMARY KEY, t text, b bytea); ALTER TABLE large ALTER t SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
         INSERT INTO large VALUES (1, repeat(E'\\\\.\\n\\\\', 50000000), NULL), (2, '', decode(repeat('005c2e0a', 50000000), 'hex'))",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "level = 1");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database} created");
    server.drop_with_test(&copy);
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
    let sums = |database: &str| server.sql(database, "SELECT id, length(t), md5(t), length(b), md5(b) FROM large ORDER BY id");
    assert!(sums(&database).contains("|200000000|"), "{}", sums(&database));
    assert_eq!(sums(&copy), sums(&database));
}
