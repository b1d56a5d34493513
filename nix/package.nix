{
  lib,
  rustPlatform,
}:

rustPlatform.buildRustPackage {
  pname = "reseed";
  version = (lib.importTOML ../Cargo.toml).workspace.package.version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../clippy.toml
      ../crates
      ../xtask
      ../docs
    ];
  };

  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [
    "--package"
    "reseed"
  ];
  # Tests run in `cargo xtask test`: they need more than a build sandbox gives.
  doCheck = false;

  meta = {
    description = "Keep the data of a homelab recoverable, and put it back when it is missing";
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = lib.platforms.linux;
    mainProgram = "reseed";
  };
}
