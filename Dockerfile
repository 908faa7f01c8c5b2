# Both programs on a small Debian: docs/installing.md. No test builds this.
FROM rust:1.91-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo install --locked --path trainer --root /out && cargo install --locked --path runtime/cli --root /out

FROM debian:bookworm-slim
COPY --from=build /out/bin/ /usr/local/bin/
WORKDIR /work
CMD ["smalti", "--help"]
