//! A certificate authority for one cluster.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use thiserror::Error;

use super::credentials::{Credentials, CredentialsError, server_name};
use super::identity::{Identity, Name, Role};

/// The names of the two files of an authority.
pub const AUTHORITY_FILE: &str = "ca.pem";
const AUTHORITY_KEY_FILE: &str = "ca.key";

/// Issues the identities of one cluster. Whoever holds its key can speak as anybody: keep it away
/// from the machines that run the cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: Name,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// An identity's certificate and key, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What can go wrong with an authority.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A certificate could not be made or read.
    #[error("cannot make or read a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What was made does not work.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The identity belongs to another cluster.
    #[error("this is the authority of cluster {expected}, it issues nothing for cluster {got}")]
    Cluster {
        /// The authority's.
        expected: Name,
        /// The identity's.
        got: Name,
    },
}

impl Authority {
    /// A new authority for this cluster.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(cluster: Name) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = own(&cluster);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority {
            cluster,
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads the authority that [`save`](Self::save) wrote to `folder`.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn load(folder: &Path, cluster: Name) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| AuthorityError::File { path, error })
        };
        let certificate = read(AUTHORITY_FILE)?;
        let key = KeyPair::from_pem(&read(AUTHORITY_KEY_FILE)?)?;
        // What it signs with is known: it made the certificate itself, from the cluster's name.
        let issuer = Issuer::new(own(&cluster), key);
        let authority = Authority {
            cluster,
            certificate,
            issuer,
        };
        // A key of another authority, or another cluster's name, shows here and not in production.
        authority.credentials(Role::Operator("probe".parse().expect("a name")))?;
        Ok(authority)
    }

    /// Writes the authority to `folder`: its certificate, and its key, readable by the owner only.
    ///
    /// # Errors
    /// When a file is there already or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), AuthorityError> {
        write_new(&folder.join(AUTHORITY_FILE), &self.certificate)?;
        let key = self.issuer.key().serialize_pem();
        write_new(&folder.join(AUTHORITY_KEY_FILE), &key)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The authority's own certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate for `role`, with a new key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn issue(&self, role: Role) -> Result<Issued, AuthorityError> {
        let identity = Identity {
            cluster: self.cluster.clone(),
            role,
        };
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let text = identity.to_string();
        params.distinguished_name = named(&text);
        params.subject_alt_names = vec![SanType::URI(text.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Role::Replica(id) = &identity.role {
            let name = server_name(&self.cluster, *id);
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into()?));
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// Issues a certificate for `role` and makes credentials of it, in memory.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn credentials(&self, role: Role) -> Result<Credentials, AuthorityError> {
        let issued = self.issue(role)?;
        let made = Credentials::from_pem(&self.certificate, &issued.certificate, &issued.key)?;
        Ok(made)
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` to `folder`; the key readable by the owner only.
    ///
    /// # Errors
    /// When a file is there already or cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), AuthorityError> {
        write_new(&folder.join(format!("{name}.pem")), &self.certificate)?;
        write_new(&folder.join(format!("{name}.key")), &self.key)
    }
}

/// What the authority's own certificate says.
fn own(cluster: &Name) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named(cluster.as_str());
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes a file that must not be there yet, readable by the owner only.
fn write_new(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
    });
    written.map_err(|error| AuthorityError::File {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_issues_carries_its_identity() {
        let authority = Authority::new("bank".parse().unwrap()).unwrap();
        let role: Identity = "paxos-commit://bank/participant/ledger".parse().unwrap();
        let credentials = authority.credentials(role.role.clone()).unwrap();
        assert_eq!(credentials.identity(), &role);
        assert!(!format!("{credentials:?}").contains("PRIVATE"));
    }

    #[test]
    fn it_is_read_back_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("bank".parse().unwrap()).unwrap();
        authority.save(folder.path()).unwrap();
        let again = Authority::load(folder.path(), "bank".parse().unwrap()).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        let role = Role::Operator("anna".parse().unwrap());
        again.credentials(role).unwrap();
        let other = Authority::load(folder.path(), "shop".parse().unwrap()).unwrap_err();
        assert!(other.to_string().contains("fit together"), "{other}");
        let error = authority.save(folder.path()).unwrap_err();
        assert!(error.to_string().contains("ca.pem"));
    }

    #[test]
    fn a_certificate_of_somebody_else_is_refused() {
        let authority = Authority::new("bank".parse().unwrap()).unwrap();
        let role = Role::Operator("anna".parse().unwrap());
        let (one, two) = (
            authority.issue(role.clone()).unwrap(),
            authority.issue(role).unwrap(),
        );
        // The key of another certificate.
        let mixed =
            Credentials::from_pem(authority.certificate(), &one.certificate, &two.key).unwrap_err();
        assert!(matches!(mixed, CredentialsError::Tls(_)), "{mixed}");
        // The authority names nobody.
        let error =
            Credentials::from_pem(authority.certificate(), authority.certificate(), &one.key);
        let error = error.unwrap_err();
        assert!(
            matches!(error, CredentialsError::NoIdentity { .. }),
            "{error}"
        );
        let nothing = Credentials::from_pem("", &one.certificate, &one.key).unwrap_err();
        assert!(matches!(nothing, CredentialsError::Pem { .. }), "{nothing}");
    }
}
