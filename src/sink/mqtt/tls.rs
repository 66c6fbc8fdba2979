//! TLS by rustls on ring: whom to trust, and this client's own certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::{OptionsError, Tls};

/// The TLS set-up, or none where it is off.
pub(super) fn client_config(tls: Option<&Tls>) -> Result<Option<Arc<ClientConfig>>, OptionsError> {
    let Some(tls) = tls else { return Ok(None) };
    let roots = match &tls.ca {
        Some(path) => authorities(path)?,
        None => system_authorities()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OptionsError::Tls)?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates("client certificate", chain)?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|e| wrong("client key", key, &e.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(OptionsError::Tls)?
        }
    };
    Ok(Some(Arc::new(config)))
}

fn authorities(path: &Path) -> Result<RootCertStore, OptionsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA file", path)? {
        roots.add(certificate).map_err(|e| wrong("CA file", path, &e.to_string()))?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, OptionsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(OptionsError::NoAuthorities) } else { Ok(roots) }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong(what, path, &e.to_string()))?;
    if found.is_empty() {
        return Err(wrong(what, path, "no PEM certificate in it"));
    }
    Ok(found)
}

fn wrong(what: &'static str, path: &Path, reason: &str) -> OptionsError {
    OptionsError::Certificate { what, path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let of = |tls: Tls| client_config(Some(&tls)).unwrap_err().to_string();
        let ca = Tls { ca: Some(path.clone()), client: None };
        assert!(of(ca.clone()).starts_with(&format!("CA file {}", path.display())));
        std::fs::write(&path, "nothing").unwrap();
        assert!(of(ca.clone()).contains("no PEM certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(of(ca).starts_with("CA file"));
        assert!(client_config(None).unwrap().is_none());
    }
}
