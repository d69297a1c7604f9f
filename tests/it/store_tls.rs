//! Servers whose certificate is signed by a company's own CA: S3, webhook and pings.

use crate::support::postgres::server;
use crate::support::s3::S3Server;
use crate::support::tls::Certificates;
use crate::support::{Scenario, quoted};

impl Certificates {
    fn server(&self, name: &str) -> S3Server {
        S3Server::start_with_tls(self.path(&format!("{name}.pem")).as_ref(), self.path(&format!("{name}.key")).as_ref())
    }

    fn google(&self, name: &str) -> S3Server {
        S3Server::start_google_with_tls(self.path(&format!("{name}.pem")).as_ref(), self.path(&format!("{name}.key")).as_ref())
    }
}

/// What a table cell holds is wrapped.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_private_ca_is_trusted_once_the_store_or_the_environment_names_it() {
    let certificates = Certificates::make();
    let server = certificates.server("localhost");
    let unknown = Scenario::empty().s3(&server).run(&["check", "--connect"]).exited(69);
    let said = one_line(&unknown.stdout);
    assert!(said.contains(&server.endpoint()) && said.contains("signed by a CA that this host does not know"), "{said}");
    assert!(said.contains("`ca_file` of its store, or in AWS_CA_BUNDLE or SSL_CERT_FILE"), "{said}");

    let ca = certificates.path("ca.pem");
    Scenario::empty().s3(&server).config(&format!("ca_file = {}\n", quoted(&ca))).run(&["check", "--connect"]).succeeded();
    for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        Scenario::empty().s3(&server).env(variable, &ca).run(&["check", "--connect"]).succeeded();
    }
}

#[test]
fn a_private_ca_of_a_cloud_is_trusted_once_its_store_or_the_environment_names_it() {
    let certificates = Certificates::make();
    let server = certificates.google("localhost");
    let unknown = Scenario::empty().google(&server).run(&["check", "--connect"]).exited(69);
    let said = one_line(&unknown.stdout);
    assert!(said.contains("signed by a CA that this host does not know") && said.contains("`ca_file` of its store"), "{said}");
    let ca = certificates.path("ca.pem");
    Scenario::empty().google(&server).config(&format!("ca_file = {}\n", quoted(&ca))).run(&["check", "--connect"]).succeeded();
    Scenario::empty().google(&server).env("SSL_CERT_FILE", &ca).run(&["check", "--connect"]).succeeded();
}

#[test]
fn a_certificate_of_another_name_is_refused_and_says_which_it_is_for() {
    let certificates = Certificates::make();
    let server = certificates.server("elsewhere");
    let scenario = Scenario::empty().s3(&server).config(&format!("ca_file = {}\n", quoted(&certificates.path("ca.pem"))));
    let said = one_line(&scenario.run(&["check", "--connect"]).exited(69).stdout);
    assert!(said.contains("its certificate is for another name") && said.contains("elsewhere"), "{said}");
}

#[test]
fn a_file_that_holds_no_certificate_is_a_mistake_of_the_configuration() {
    let scenario = Scenario::empty().s3(&S3Server::start()).config("ca_file = \"ca.pem\"\n[notify]\nca_file = \"config.toml\"\n");
    scenario.run(&["check"]).exited(78).says(&["`ca_file` of store `bucket`: cannot read", "contains no certificate"]);
    // The environment is looked at when the store is opened.
    let scenario = Scenario::empty().s3(&S3Server::start()).env("AWS_CA_BUNDLE", "config.toml");
    let said = one_line(&scenario.run(&["check", "--connect"]).exited(78).stdout);
    assert!(said.contains("AWS_CA_BUNDLE") && said.contains("contains no certificate"), "{said}");
}

#[test]
fn pings_and_webhook_trust_the_ca_that_is_named_for_them() {
    let certificates = Certificates::make();
    // Any HTTPS server will do: this one refuses what is not signed.
    let https = certificates.server("localhost");
    let database = server(18).new_database();
    let scenario = || {
        let scenario = Scenario::with_database(server(18), &database).env("PING_URL", &https.endpoint());
        let scenario = scenario.config(&format!("[notify]\nwebhook_url = {}\n", quoted(&https.endpoint())));
        scenario.sql_job("pinged", "ping_url_env = \"PING_URL\"", &["SELECT 1/0"])
    };
    let unknown = scenario().run(&["run-job", "pinged"]).exited(1);
    unknown.says(&["ping of job `pinged` was not delivered", "webhook was not delivered", "`ca_file` of [notify]"]);
    let ca = certificates.path("ca.pem");
    let trusted = scenario().config(&format!("ca_file = {}\n", quoted(&ca))).run(&["run-job", "pinged"]).exited(1);
    trusted.says(&["ping of job `pinged` was not delivered: HTTP 403", "webhook was not delivered: HTTP"]);
    let trusted = scenario().env("SSL_CERT_FILE", &ca).run(&["run-job", "pinged"]).exited(1);
    trusted.says(&["ping of job `pinged` was not delivered: HTTP 403"]);
}
