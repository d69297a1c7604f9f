//! Jobs in the language of other schedulers: systemd timers, Kubernetes CronJobs.

pub mod cron;
pub mod kubernetes;
pub mod systemd;
