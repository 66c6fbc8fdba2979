//! Why there is no connection, in words that say what to do.

use std::error::Error;
use std::io;

use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode as Code5;
use rumqttc::{ConnectReturnCode as Code3, ConnectionError, StateError, TlsError};

/// Why a connection was not made, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// User or password are wrong, or needed.
    #[error("it refuses this user and password; check `username` and what `password_file` holds")]
    Credentials,
    /// The client id is not accepted.
    #[error("it refuses our client id; check which client ids this user may have")]
    ClientId,
    /// The version is not spoken there.
    #[error("it does not speak this version of MQTT; set the other `version`")]
    Version,
    /// The broker's certificate is not trusted, or ours not accepted.
    #[error(
        "TLS: {0}; check `ca`, that `host` is the certificate's name, the client's certificate, the clock"
    )]
    Certificate(String),
    /// TLS with something that does not speak it.
    #[error("TLS: {0}; does this port speak TLS? (by custom 8883)")]
    Tls(String),
    /// No such host.
    #[error("the host cannot be found: {0}; check `host` and the network")]
    Host(String),
    /// Nobody listens.
    #[error("nobody listens there; is the broker running, and the port right?")]
    NobodyListens,
    /// The broker gives no sign of life.
    #[error("it does not answer; check the network between here and there")]
    Silent,
    /// The broker ended the connection.
    #[error("it closed the connection{0}; its log tells why")]
    Closed(String),
    /// The broker turned us away for another reason.
    #[error("it turns us away: {0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Cause {
    /// Whether only a person can remove it: tried again slowly.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Credentials | Self::ClientId | Self::Version | Self::Certificate(_))
    }

    fn of_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::NobodyListens,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Closed(String::new()),
            io::ErrorKind::TimedOut => Self::Silent,
            // The resolver's errors have no kind of their own.
            _ if error.to_string().contains("lookup address") => Self::Host(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(_)
            | E::NoCertificatesPresented
            | E::UnsupportedNameType
            | E::AlertReceived(_) => Self::Certificate(error.to_string()),
            _ => Self::Tls(error.to_string()),
        }
    }

    /// Of an error without types of its own interest: the first I/O error among its sources.
    fn of_chain(error: &(dyn Error + 'static)) -> Self {
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Self::of_io(io);
            }
            at = error.source();
        }
        Self::Other(error.to_string())
    }
}

impl From<TlsError> for Cause {
    fn from(error: TlsError) -> Self {
        match &error {
            TlsError::Io(io) => Self::of_io(io),
            TlsError::TLS(tls) => Self::of_tls(tls),
            _ => Self::Tls(error.to_string()),
        }
    }
}

impl From<ConnectionError> for Cause {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                Code3::BadUserNamePassword | Code3::NotAuthorized => Self::Credentials,
                Code3::BadClientId => Self::ClientId,
                Code3::RefusedProtocolVersion => Self::Version,
                other => Self::Refused(format!("{other:?}")),
            },
            ConnectionError::NetworkTimeout
            | ConnectionError::FlushTimeout
            | ConnectionError::MqttState(StateError::AwaitPingResp | StateError::CollisionTimeout) => {
                Self::Silent
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::Closed(String::new()),
            ConnectionError::Tls(error) => error.into(),
            ConnectionError::Io(error) => Self::of_io(&error),
            other => Self::of_chain(&other),
        }
    }
}

impl From<v5::ConnectionError> for Cause {
    fn from(error: v5::ConnectionError) -> Self {
        use v5::{ConnectionError, StateError};
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                Code5::BadUserNamePassword | Code5::NotAuthorized => Self::Credentials,
                Code5::ClientIdentifierNotValid | Code5::BadClientId => Self::ClientId,
                Code5::UnsupportedProtocolVersion | Code5::RefusedProtocolVersion => Self::Version,
                other => Self::Refused(format!("{other:?}")),
            },
            ConnectionError::Timeout(_)
            | ConnectionError::MqttState(StateError::AwaitPingResp | StateError::CollisionTimeout) => {
                Self::Silent
            }
            ConnectionError::MqttState(StateError::ConnectionAborted) => Self::Closed(String::new()),
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
                Self::Closed(format!(" ({reason_code:?})"))
            }
            // This one does not tell its source.
            ConnectionError::MqttState(StateError::Deserialization(error)) => Self::of_chain(&error),
            ConnectionError::Tls(error) => error.into(),
            ConnectionError::Io(error) => Self::of_io(&error),
            other => Self::of_chain(&other),
        }
    }
}
