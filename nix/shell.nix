{ pkgs }:

pkgs.mkShell {
  packages = with pkgs; [
    cargo
    rustc
    clippy
    rustfmt
    cargo-nextest
    cargo-deny
    restic
    b3sum
  ];
}
