//! HTTP/2 written by hand, for orders of frames that no client library produces.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::Message;

use super::PATIENCE;
use super::client::Answer;
use super::wire::CHECK;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connects and sends the preface and settings; acknowledgements are left to [`Raw::next`].
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Self { socket };
        raw.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.write(SETTINGS, 0, 0, &[]);
        // A window that is never used up.
        raw.write(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
        raw
    }

    /// Writes a frame; a connection that the server has closed is noticed when reading.
    pub fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let _noticed_when_reading = self.socket.write_all(&[&head[..], payload].concat());
    }

    /// Opens a stream for a check.
    pub fn headers(&mut self, stream: u32) {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        // HPACK: POST, http, then literals without indexing.
        let block = [
            &[0x83, 0x86][..],
            &[&[0x04][..], &text(CHECK)].concat(),
            &[&[0x01][..], &text("palisade")].concat(),
            &[&[0x0f, 0x10][..], &text("application/grpc")].concat(),
            &[&[0x00][..], &text("te"), &text("trailers")].concat(),
        ]
        .concat();
        self.write(HEADERS, END_HEADERS, stream, &block);
    }

    pub fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.write(DATA, if end { END_STREAM } else { 0 }, stream, bytes);
    }

    /// The next frame that says something; settings and pings are answered on the way. `None` at the end.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => {
                    self.write(SETTINGS, ACK, 0, &[]);
                    return Some(frame);
                }
                (PING, 0) => self.write(PING, ACK, 0, &frame.payload),
                (SETTINGS | PING, _) | (WINDOW_UPDATE, _) => {}
                _ => return Some(frame),
            }
        }
    }

    fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload })
    }

    /// The next answer on any stream; a GOAWAY with an error, or an end, fails the test.
    #[track_caller]
    pub fn answer(&mut self) -> (u32, Answer) {
        loop {
            let frame = self.next().expect("the connection ended");
            match frame.kind {
                GOAWAY => panic!("the server gave the connection up: {frame:?}"),
                DATA if !frame.payload.is_empty() => {
                    let message = CheckResponse::decode(&frame.payload[5..]).unwrap();
                    return (frame.stream, Answer::sound(message));
                }
                _ => {}
            }
        }
    }
}
