//! Server-sent events, as far as a stream of JSON-RPC messages needs them (HTML, "Server-sent events", section 9.2.6).

/// Collects bytes, and gives back the data of each event as it ends.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The line that has not ended.
    line: Vec<u8>,
    data: Vec<u8>,
    /// Whether a line feed would be the second half of a line's end.
    after_return: bool,
}

impl Events {
    /// Takes bytes, and gives the data of every event that they end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut ended = Vec::new();
        for byte in bytes {
            let is_second = std::mem::replace(&mut self.after_return, *byte == b'\r') && *byte == b'\n';
            match byte {
                b'\n' if is_second => {}
                b'\r' | b'\n' => ended.extend(self.end_line()),
                byte => self.line.push(*byte),
            }
        }
        ended
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            // What has no data is no event: a comment that keeps the stream alive.
            return Some(std::mem::take(&mut self.data)).filter(|data| !data.is_empty());
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_an_empty_line_however_they_are_cut() {
        let stream = b": alive\r\n\r\nevent: message\r\nid: 1\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata: x\n\ndata: y\r\rdata: cut";
        for size in [1, 2, 3, 7, stream.len()] {
            let mut events = Events::default();
            let all: Vec<Vec<u8>> = stream.chunks(size).flat_map(|chunk| events.take(chunk)).collect();
            assert_eq!(all, [b"{\"a\":\n1}".to_vec(), b"x".to_vec(), b"y".to_vec()], "{size}");
        }
    }
}
