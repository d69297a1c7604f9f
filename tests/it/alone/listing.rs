//! Many sets are listed by many requests at once.

use crate::support::Scenario;
use crate::support::postgres::server;
use crate::support::s3::S3Server;

#[test]
fn four_hundred_sets_are_listed_with_requests_in_flight() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let from = s3.file_of(&format!("test/{}", scenario.sets()[0]));
    for number in 0..400 {
        let to = s3.file_of(&format!("test/app/nightly/2025-01-01T{:02}-{:02}-00Z", number / 60, number % 60));
        std::fs::create_dir_all(&to).unwrap();
        for file in ["dump.sql.gz", "globals.sql.gz", "manifest.json", "verification.json", "run.json"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    s3.break_with(crate::support::s3::Rule {
        method: hyper::Method::GET,
        contains: "json",
        skip: 0,
        times: u32::MAX,
        fault: crate::support::s3::Fault::Slow(std::time::Duration::from_millis(50)),
    });
    assert_eq!(scenario.sets().len(), 401);
    assert!(s3.most_at_once() >= 16, "{} requests at once", s3.most_at_once());
}
