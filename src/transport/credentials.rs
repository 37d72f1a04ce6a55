//! A certificate, its key, and the authority of the cluster: what one process proves itself with.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{CertificateError, RootCertStore};
use thiserror::Error;
use time::OffsetDateTime;

use crate::protocol::paxos::ReplicaId;
use crate::wire::ALPN;

use super::identity::{Identity, Name};

/// What one process proves itself with. Made of PEM; kept in memory; both sides of every connection
/// show theirs.
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        write!(f, "Credentials({})", self.identity)
    }
}

/// Why credentials were refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Something is missing in a PEM text, or damaged.
    #[error("expected {expected} in PEM: {error}")]
    Pem {
        /// What.
        expected: &'static str,
        /// What the parser says.
        error: rustls::pki_types::pem::Error,
    },
    /// The certificate names nobody.
    #[error(
        "the certificate carries no identity: expected one URI like \
         paxos-commit://CLUSTER/replica/1 among its alternative names, got {got:?}; issue it with \
         `paxos-commit certs`"
    )]
    NoIdentity {
        /// The URIs that it does carry.
        got: Vec<String>,
    },
    /// The certificate is valid at another time.
    #[error(
        "the certificate of {identity} {what} {limit}, and the clock of this machine says {now}. If \
         the clock is wrong, set it; if it is right, issue a new certificate, and start again",
        limit = date(*limit),
        now = date(*now),
    )]
    NotNow {
        /// Whose it is.
        identity: Box<Identity>,
        /// Which end of its time is on the wrong side.
        what: &'static str,
        /// That end, in seconds since 1970.
        limit: u64,
        /// The time of this machine, in the same.
        now: u64,
    },
    /// The clock is so wrong that no certificate can be checked.
    #[error(
        "the clock of this machine stands before 1970, where no certificate is valid: set it, and \
         start again"
    )]
    Clock,
    /// Certificate, key and authority do not fit together.
    #[error("the certificate, its key and the authority do not fit together: {0}")]
    Tls(String),
}

impl Credentials {
    /// From PEM texts: the certificates of the authority, the own chain, the own key.
    ///
    /// # Errors
    /// When one of them is damaged, or the certificate carries no [`Identity`].
    pub fn from_pem(authority: &str, chain: &str, key: &str) -> Result<Self, CredentialsError> {
        let pem = |expected| move |error| CredentialsError::Pem { expected, error };
        let chain = certificates(chain).map_err(pem("a certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem("a private key"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(authority).map_err(pem("the authority's certificate"))? {
            let tls = |error: rustls::Error| CredentialsError::Tls(error.to_string());
            roots.add(root).map_err(tls)?;
        }
        let identity = identity_of(&chain)?;
        let credentials = Credentials {
            identity,
            chain,
            key: Arc::new(key),
            roots: Arc::new(roots),
        };
        credentials.verify_own()?;
        credentials.client()?;
        credentials.server()?;
        Ok(credentials)
    }

    /// From PEM files.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), or when a file cannot be read.
    pub fn load(authority: &Path, chain: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| CredentialsError::File {
                path: path.to_owned(),
                error,
            })
        };
        Credentials::from_pem(&read(authority)?, &read(chain)?, &read(key)?)
    }

    /// Who they are for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the authority has signed the certificate, as a replica will check it.
    fn verify_own(&self) -> Result<(), CredentialsError> {
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider);
        let verifier = verifier.build().map_err(fit)?;
        let (first, rest) = match &self.chain[..] {
            [first, rest @ ..] => (first, rest),
            [] => return Err(CredentialsError::NoIdentity { got: Vec::new() }),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(now.map_err(|_| CredentialsError::Clock)?);
        let verified = verifier.verify_client_cert(first, rest, now);
        verified.map(drop).map_err(|error| self.refusal(error))
    }

    fn refusal(&self, error: rustls::Error) -> CredentialsError {
        let not_now = |what, limit: UnixTime, now: UnixTime| CredentialsError::NotNow {
            identity: Box::new(self.identity.clone()),
            what,
            limit: limit.as_secs(),
            now: now.as_secs(),
        };
        match error {
            rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                time,
                not_after,
            }) => not_now("has expired: it was valid until", not_after, time),
            rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
                time,
                not_before,
            }) => not_now("is not valid yet: it will be from", not_before, time),
            error => fit(error),
        }
    }

    /// How a dialer proves itself.
    pub(super) fn client(&self) -> Result<quinn::ClientConfig, CredentialsError> {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(fit)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(fit)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would carry an old proof of who the peer is.
        tls.resumption = rustls::client::Resumption::disabled();
        let quic = QuicClientConfig::try_from(tls).map_err(fit)?;
        Ok(quinn::ClientConfig::new(Arc::new(quic)))
    }

    /// How a replica proves itself, and asks everyone else to.
    pub(super) fn server(&self) -> Result<quinn::ServerConfig, CredentialsError> {
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
                .build()
                .map_err(fit)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(fit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(fit)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.send_tls13_tickets = 0;
        let quic = QuicServerConfig::try_from(tls).map_err(fit)?;
        Ok(quinn::ServerConfig::with_crypto(Arc::new(quic)))
    }
}

/// The identity in a chain that rustls has verified, or that is one's own.
pub(super) fn identity_of(chain: &[CertificateDer<'_>]) -> Result<Identity, CredentialsError> {
    let none = || CredentialsError::NoIdentity { got: Vec::new() };
    let first = chain.first().ok_or_else(none)?;
    let certificate = webpki::EndEntityCert::try_from(first).map_err(fit)?;
    let uris: Vec<String> = certificate.valid_uri_names().map(str::to_owned).collect();
    match &uris[..] {
        [uri] => uri
            .parse()
            .map_err(|_| CredentialsError::NoIdentity { got: uris.clone() }),
        _ => Err(CredentialsError::NoIdentity { got: uris }),
    }
}

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
/// A certificate for a fuzzer: one in DER, and a text that stands in one that is right as such.
pub(crate) fn fuzz_certificate(bytes: &[u8]) -> bool {
    let read = |der: &[u8]| match identity_of(&[CertificateDer::from(der)]) {
        Ok(identity) => {
            assert_eq!(identity.to_string().parse(), Ok(identity));
            true
        }
        Err(_) => false,
    };
    // What stands in the certificate files, too.
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(chain) = certificates(text)
    {
        return chain.iter().any(|der| read(der));
    }
    read(bytes)
}

#[cfg(all(test, feature = "cluster", feature = "embedded"))]
pub(crate) fn fuzz_der(pem: &str) -> Vec<u8> {
    certificates(pem).expect("a certificate")[0].to_vec()
}

/// The name under which a dialer expects a replica's certificate: TLS verifies it, so that nobody
/// else of the cluster can stand at a replica's address.
pub fn server_name(cluster: &Name, replica: ReplicaId) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, cluster.as_str().as_bytes());
    let label: String = digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("replica-{replica}.{label}.paxos-commit.internal")
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(rustls::pki_types::pem::Error::NoItemsFound);
    }
    Ok(found)
}

/// The day, in UTC, so many seconds after the beginning of 1970.
fn date(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or("a day beyond the year 9999".into(), |time| {
        time.date().to_string()
    })
}

fn fit(error: impl fmt::Display) -> CredentialsError {
    CredentialsError::Tls(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (20_779, "2026-11-22"),
        ] {
            assert_eq!(date(day * 86_400), expected);
            assert_eq!(date(day * 86_400 + 86_399), expected);
        }
        assert_eq!(date(u64::MAX), "a day beyond the year 9999");
    }
}
