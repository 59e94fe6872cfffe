//! TLS to the database, with the verification that the URL requires.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Cause;

/// The required verification of the server's certificate, and the trusted authorities.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) trust: Trust,
    pub(super) roots: Roots,
}

/// The required verification of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// None: this protects against eavesdropping, but not against a man in the middle.
    Unverified,
    /// The certificate is signed by one of the authorities (`verify-ca`).
    Chain,
    /// In addition, it is valid for the host name (`verify-full`).
    ChainAndName,
}

/// The trusted authorities.
#[derive(Clone, Debug)]
pub(super) enum Roots {
    /// Those of the operating system.
    System,
    /// Those in a file, in PEM.
    File(PathBuf),
}

/// Verifies the server's certificate as far as required.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Verifies chain and name; `None` if no verification is required.
    strict: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
}

impl Tls {
    /// The TLS connector for the driver.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, Cause> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let strict = match self.trust {
            Trust::Unverified => None,
            Trust::Chain | Trust::ChainAndName => {
                let roots = Arc::new(self.roots.load()?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                Some(verifier.build().map_err(Cause::new)?)
            }
        };
        let checks_name = self.trust == Trust::ChainAndName;
        let verifier = Verifier { provider: provider.clone(), strict, checks_name };
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(Cause::new)?.dangerous();
        let config = config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

impl Roots {
    fn load(&self) -> Result<RootCertStore, Cause> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::File(path) => {
                let wrong = |why: &dyn std::fmt::Display| Cause::new(format!("{}: {why}", path.display()));
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| wrong(&error))?;
                    roots.add(certificate).map_err(|error| wrong(&error))?;
                }
            }
        }
        if roots.is_empty() {
            return Err(Cause::new("there is no root certificate to verify the certificate of the database"));
        }
        Ok(roots)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(strict) = &self.strict else { return Ok(ServerCertVerified::assertion()) };
        match strict.verify_server_cert(certificate, chain, name, ocsp, now) {
            // This error is returned only after the chain was found valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
