//! Lingering close: closes a connection so that the last response arrives.
//!
//! Much of a rejected request may still be in transit when the response is sent. Closing a connection with
//! unread bytes resets it, and the reset may overtake the response (RFC 9112 §9.6). So the write half is shut
//! down first, and the remaining bytes are read and discarded, within limits of size and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limit::{LINGER_BYTES_MAX, LINGER_WAIT_MAX};

/// A stream that, when it is shut down, discards input until the peer closes or a limit is reached.
pub(crate) struct LingeringStream<S> {
    stream: S,
    linger: Option<LingerState>,
}

struct LingerState {
    deadline: Pin<Box<Sleep>>,
    discarded_bytes: usize,
}

impl<S> LingeringStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, linger: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LingeringStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, linger } = self.get_mut();
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let linger = linger.get_or_insert_with(|| LingerState {
            deadline: Box::pin(sleep(LINGER_WAIT_MAX)),
            discarded_bytes: 0,
        });
        while linger.discarded_bytes < LINGER_BYTES_MAX && linger.deadline.as_mut().poll(context).is_pending()
        {
            let mut bytes = [0; 4_096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => linger.discarded_bytes += buffer.filled().len(),
                // The peer has closed the connection or is gone: nothing more can be delivered.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
