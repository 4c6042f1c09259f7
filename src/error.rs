//! The one error type of the crate. Its codes are those of `DiffusionError` in the public module.

use std::fmt;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure, as the visitor's code sees it (`DiffusionError.code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No WebGPU, or no adapter that runs our kernels rightly.
    WebGpuUnavailable,
    /// A configuration field, class or layout that this engine does not compute.
    UnsupportedModel,
    /// A checkpoint file that breaks its own format, or lacks tensors that its configuration needs.
    BadCheckpoint,
    /// A request that failed or was answered with an error status.
    Network,
    /// Bytes that are not the bytes they should be.
    Integrity,
    /// The browser refused to store more.
    Quota,
    /// The GPU, or a limit of it, is too small.
    OutOfMemory,
    /// The GPU was taken away.
    DeviceLost,
    /// An option of `generate` or `fromPretrained` that cannot be honoured.
    InvalidOption,
    /// The caller's `AbortSignal` fired.
    Aborted,
}

impl Code {
    /// The code's name in `www/browser-diffusion.d.ts`.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::WebGpuUnavailable => "webgpu-unavailable",
            Code::UnsupportedModel => "unsupported-model",
            Code::BadCheckpoint => "bad-checkpoint",
            Code::Network => "network",
            Code::Integrity => "integrity",
            Code::Quota => "quota",
            Code::OutOfMemory => "out-of-memory",
            Code::DeviceLost => "device-lost",
            Code::InvalidOption => "invalid-option",
            Code::Aborted => "aborted",
        }
    }
}

/// A failure with a message that says what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::UnsupportedModel, message)
    }
    pub fn bad_checkpoint(message: impl Into<String>) -> Self {
        Self::new(Code::BadCheckpoint, message)
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidOption, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {}

/// Gives work up: `aborted` says whether it should be.
///
/// # Errors
/// `aborted`.
pub(crate) fn check_aborted(aborted: &dyn Fn() -> bool) -> Result<()> {
    if aborted() {
        return Err(Error::new(Code::Aborted, "Stopped. What was loaded or drawn before stays as it is."));
    }
    Ok(())
}
