//! Real databases take part. Needs their binaries: Debian's packages `postgresql` and
//! `mariadb-server`. Servers are started on folders of their own, and stopped.
#![allow(clippy::unwrap_used)]

mod mariadb;
mod postgres;
mod together;
