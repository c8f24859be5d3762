# byol_tf with TensorFlow for the CPU; --build-arg EXTRA=gpu takes NVIDIA's libraries along. See docs/install.md.
FROM python:3.12-slim

ARG EXTRA=cpu
COPY . /src
RUN pip install --no-cache-dir "/src[${EXTRA}]" && rm -r /src

# A home that every user can write to, so that the container runs as whoever owns the photos.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["byol"]
CMD ["--help"]
