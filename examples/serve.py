"""Serves SavedModels over HTTP and gRPC, as TensorFlow Serving does, with a page.

    python -m examples.serve --model=digits=outputs/digits/served
    python -m examples.serve --model=a=DIR --model=b=DIR --port=8501 --grpc_port=8500

A model is a folder of versions, `<folder>/<number>/saved_model.pb`. All of them are in
service (TensorFlow Serving keeps the latest only), requests that name none go to the
latest, and a version that is moved into the folder is served without a restart. Open
the address in a browser to see what the last two versions say of an image.

Its clients are TensorFlow Serving's clients. For one machine and people who are
trusted: no TLS, no accounts, no batching across requests. What it protects itself from
is in SECURITY.md.
"""

import asyncio
import os
import pathlib
import re
import socket
import sys
import threading

import grpc
from absl import app, flags, logging
from aiohttp import web

from .admission import Admission
from .grpc_service import Grpc
from .request_checks import check_requests
from .rest_service import Rest, errors_as_json
from .servables import ServedModel

FLAGS = flags.FLAGS

WAITING = 64  # requests, beside those that run
LARGE = 4  # requests of the largest size, together


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_multi_string("model", None, "NAME=FOLDER; repeat it for more models.")
    flags.DEFINE_string("host", "127.0.0.1", "Address; 0.0.0.0 for the whole network.")
    flags.DEFINE_integer("port", 8501, "Of HTTP; 0 for one that is free.")
    flags.DEFINE_integer("grpc_port", None, "Of gRPC, which is off without it.")
    flags.DEFINE_float("poll_seconds", 1.0, "Time between looks for new versions.")
    flags.DEFINE_float("max_request_mib", 16.0, "Requests larger than this get 413.")
    flags.DEFINE_float("max_megapixels", 50.0, "Of all images in a request.")
    flags.DEFINE_integer("threads", os.cpu_count(), "That run models.")
    flags.DEFINE_float("grace_seconds", 30.0, "For requests in flight, after SIGTERM.")
    flags.DEFINE_list("allowed_hosts", [], "Names that clients may call it by.")
    flags.mark_flag_as_required("model")
    positive = ("max_megapixels", "max_request_mib", "poll_seconds", "threads")
    for name in (*positive, "grace_seconds"):
        flags.register_validator(name, lambda x: x > 0, f"--{name} is above 0.")


def serve(
    models,
    http_socket,
    grpc_address,
    *,
    poll_seconds,
    max_bytes,
    threads,
    grace_seconds,
    allowed_hosts,
):
    """Serves until SIGINT or SIGTERM; requests in flight are finished first.

    Args:
        models: {name: `ServedModel`}.
        http_socket: that listens.
        grpc_address: "host:port", or None for no gRPC.
        poll_seconds: time between looks for new versions.
        max_bytes: of a request.
        threads: that run models.
        grace_seconds: after which requests in flight are dropped.
        allowed_hosts: names by which HTTP clients may call it, beside addresses.
    """
    admission = Admission(threads, threads + WAITING, LARGE * max_bytes)
    ending = asyncio.Event()

    def drop():
        logging.warning("Requests still ran after %g s; they are lost.", grace_seconds)
        os._exit(1)  # a thread that runs a model cannot be stopped

    async def end(application):
        ending.set()
        timer = threading.Timer(grace_seconds, drop)
        timer.daemon = True
        timer.start()

    async def watch(application):
        async def look_again():
            while True:
                await asyncio.sleep(poll_seconds)
                for model in models.values():
                    try:
                        await asyncio.to_thread(model.poll)
                    except OSError as error:  # a folder that went while it was read
                        logging.warning("%s: %s; will look again.", model.name, error)

        looking = asyncio.create_task(look_again())
        yield
        looking.cancel()

    async def run_grpc(application):
        server = grpc.aio.server(
            handlers=Grpc(models, admission).handlers(),
            options=[
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none
                ("grpc.so_reuseport", 0),  # a port that is taken is an error
            ],
            maximum_concurrent_rpcs=threads + WAITING,
        )
        try:
            port = server.add_insecure_port(grpc_address)
        except RuntimeError as error:
            sys.exit(f"gRPC: {error}")
        await server.start()
        print(f"gRPC at {grpc_address.rpartition(':')[0]}:{port}", flush=True)

        async def stop():
            await ending.wait()
            await server.stop(grace_seconds)

        stopping = asyncio.create_task(stop())
        yield
        await stopping

    application = web.Application(
        middlewares=[errors_as_json, check_requests(allowed_hosts)],
        client_max_size=max_bytes,
    )
    application.add_routes(Rest(models, admission).routes())
    application.on_shutdown.append(end)
    application.cleanup_ctx.append(watch)
    if grpc_address:
        application.cleanup_ctx.append(run_grpc)
    host, port = http_socket.getsockname()[:2]
    web.run_app(
        application,
        sock=http_socket,
        shutdown_timeout=grace_seconds,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,  # of clients that have left
        print=lambda _: print(f"REST and page at http://{host}:{port}", flush=True),
    )


def parse_models(texts, max_pixels):
    """{name: `ServedModel`} of NAME=FOLDER texts, each version loaded."""
    models = {}
    for text in texts:
        name, _, folder = text.partition("=")
        named = folder and re.fullmatch(r"[\w.-]+", name)
        if not named or not pathlib.Path(folder).is_dir():
            raise ValueError(
                f"--model={text}: expected NAME=FOLDER, and a folder that exists, of "
                f"versions such as FOLDER/1/saved_model.pb."
            )
        if name in models:
            raise ValueError(f"--model={text}: {name!r} is taken by another folder.")
        models[name] = ServedModel(name, folder, max_pixels)
        models[name].poll()
        path = pathlib.Path(folder).resolve()
        if not models[name].versions and (path / "saved_model.pb").exists():
            above = f"Pass --model={name}={path.parent}."
            raise ValueError(
                f"--model={text}: {folder} is one version, and a folder of versions is "
                f"needed. "
                + (above if path.name.isdigit() else f"Move its files to {folder}/1.")
            )
        print(f"{name}: versions {sorted(models[name].versions) or 'none yet'}")
    return models


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        models = parse_models(FLAGS.model, int(FLAGS.max_megapixels * 1e6))
        http_socket = socket.create_server((FLAGS.host, FLAGS.port), backlog=1024)
    except (ValueError, OSError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    serve(
        models,
        http_socket,
        None if FLAGS.grpc_port is None else f"{FLAGS.host}:{FLAGS.grpc_port}",
        poll_seconds=FLAGS.poll_seconds,
        max_bytes=int(FLAGS.max_request_mib * 2**20),
        threads=FLAGS.threads,
        grace_seconds=FLAGS.grace_seconds,
        allowed_hosts=[FLAGS.host, *FLAGS.allowed_hosts],
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
