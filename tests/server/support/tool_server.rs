//! A tool server that says whatever a test wants it to: what a real one never does. Real ones are in the mesh tests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Asked {
    pub fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The answer to it, as JSON.
    pub fn answer(&self, result: &Value) -> Said {
        let body = json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result }).to_string();
        Said::new(200, "application/json", &body)
    }
}

/// What goes back.
#[derive(Clone, Debug)]
pub struct Said {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Said {
    pub fn new(status: u16, kind: &str, body: &str) -> Self {
        Self { status, headers: vec![("content-type".into(), kind.into())], body: body.as_bytes().to_vec() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// What a server says to what it is asked.
pub type Script = Box<dyn Fn(&Asked) -> Said + Send>;

/// The server. Its thread ends with the process.
pub struct ToolServer {
    pub url: String,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ToolServer {
    pub fn start(script: impl Fn(&Asked) -> Said + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (says, notes) = (script.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up early has what it wanted.
                let _gone = serve(stream, &says, &notes);
            }
        });
        Self { url, script, asked }
    }

    /// One that lists tools, in the newest revision, and in it alone.
    pub fn listing(tools: &Value) -> Self {
        let server = Self::start(|_| Said::new(500, "text/plain", ""));
        server.list(tools);
        server
    }

    pub fn says(&self, script: impl Fn(&Asked) -> Said + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// From now on it lists these.
    pub fn list(&self, tools: &Value) {
        let tools = tools.clone();
        self.says(move |asked| asked.answer(&json!({ "tools": tools, "ttlMs": 0, "cacheScope": "public" })));
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, script: &Mutex<Script>, asked: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let verb = line.split(' ').next().unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let one = Asked { verb, headers, body: serde_json::from_slice(&body).unwrap_or_default() };
    asked.lock().unwrap().push(one.clone());
    let Said { status, headers, body } = script.lock().unwrap()(&one);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} x\r\nconnection: close\r\n")?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    stream.write_all(&body)
}
