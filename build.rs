//! Compiles `proto/` without a system `protoc`: protox parses, prost generates the messages, tonic the service and its client,
//! pbjson the messages' protobuf JSON mapping.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    if std::env::var_os("CARGO_FEATURE_SERVER").is_none() {
        return Ok(());
    }
    let descriptors =
        protox::compile(["palisade/v1/record.proto", "palisade/v1/log.proto", "palisade/v1/control.proto"], ["proto"])?;
    let encoded = prost_build::Config::new()
        .extern_path(".google.protobuf.Timestamp", "crate::proto::Timestamp")
        // Without the transport: connections are made and taken by `src/control`.
        .service_generator(tonic_prost_build::configure().build_transport(false).service_generator())
        .compile_fds(descriptors.clone());
    encoded?;
    pbjson_build::Builder::new()
        .register_descriptors(&protox::prost::Message::encode_to_vec(&descriptors))?
        .build(&[".palisade"])?;
    Ok(())
}
