"""Take people's features out of a DeepStream pipeline, average them by track, and deliver them to a gallery.

The pipeline is DeepStream's own: a detector, nvtracker, and after it nvinfer with the configuration that
``reid-edge export --for deepstream`` wrote.  A probe behind it reads the tensors from the metadata.

Usage: python deepstream_bridge.py TARGET DETECTOR.txt TRACKER.yml GALLERY.db URI
TARGET: the folder of export; DETECTOR.txt: nvinfer's configuration of a detector whose class 0 is people;
TRACKER.yml: nvtracker's; URI: video, e.g. rtsp://… or file:///…
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

import reid_edge
from reid_edge.camera.crop_selector import crop_quality
from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails, Tracklets
from reid_edge.runtime.target_folder import read_record

WIDTH, HEIGHT = 1920, 1080  # of the frames that nvstreammux makes; boxes are in these pixels
FEATURES_OF = 2  # gie-unique-id in nvinfer_secondary.txt
UNTRACKED = 0xFFFFFFFFFFFFFFFF
GONE_US = 2_000_000  # a track without a box for so long has ended


class Bridge:
    """Averages the features of one camera's tracks and puts them into its outbox; called by one thread."""

    def __init__(self, record, outbox):
        self._dim = record.features.dim
        self._outbox = outbox
        # Numbers of tracklets must not come twice in one outbox.
        self._tracklets = Tracklets(model_hash=record.model_hash, first_tracklet=outbox.last_seq + 1)
        self._last_us = {}

    def frame(self, time_us, people):
        """Take the people of a frame: track, box in pixels (x1 y1 x2 y2), confidence, D numbers or None."""
        boxes = np.array([box for _, box, _, _ in people], np.float32).reshape(-1, 4)
        qualities = crop_quality(boxes, area=(0, 0, WIDTH, HEIGHT))
        found = []
        for (track, box, confidence, feature), quality in zip(people, qualities, strict=True):
            self._last_us[track] = time_us
            if feature is None or not np.linalg.norm(feature) > 0:
                continue
            x1, y1, x2, y2 = np.clip(np.divide(box, (WIDTH, HEIGHT) * 2), 0, 1)
            crop = CropDetails(track, time_us, (x1, y1, x2, y2), min(max(confidence, 0.0), 1.0), float(quality))
            found += self._tracklets.add(crop, feature / np.linalg.norm(feature))
        gone = [track for track, last_us in self._last_us.items() if time_us - last_us > GONE_US]
        found += self._tracklets.end([EndedTrack(track, self._last_us.pop(track)) for track in gone])
        self._put(found)

    def finish(self):
        """Publish what is left of all tracks."""
        self._put(self._tracklets.finish())

    def probe(self, pyds, batch):
        """Read an NvDsBatchMeta of one camera."""
        for frame in listed(batch.frame_meta_list, pyds.NvDsFrameMeta):
            objects = listed(frame.obj_meta_list, pyds.NvDsObjectMeta)
            people = [self._person(pyds, one) for one in objects if one.object_id != UNTRACKED]
            self.frame(frame.ntp_timestamp // 1000, people)

    def _person(self, pyds, found):
        rect = found.rect_params
        box = (rect.left, rect.top, rect.left + rect.width, rect.top + rect.height)
        feature = None
        for user in listed(found.obj_user_meta_list, pyds.NvDsUserMeta):
            if user.base_meta.meta_type == pyds.NvDsMetaType.NVDSINFER_TENSOR_OUTPUT_META:
                tensor = pyds.NvDsInferTensorMeta.cast(user.user_meta_data)
                if tensor.unique_id == FEATURES_OF:
                    address = pyds.get_ptr(pyds.get_nvds_LayerInfo(tensor, 0).buffer)
                    numbers = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
                    feature = np.ctypeslib.as_array(numbers, shape=(self._dim,)).copy()
        return found.object_id, box, found.confidence, feature

    def _put(self, observations):
        if observations:
            self._outbox.put(observations)


def listed(node, kind):
    """Yield the members of one of DeepStream's lists."""
    while node is not None:
        yield kind.cast(node.data)
        try:
            node = node.next
        except StopIteration:
            return


def run(bridge, folder, detector, tracker, uri):
    """Run the pipeline to its end."""
    import gi
    import pyds

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    pipeline = Gst.parse_launch(
        f"uridecodebin uri={uri} ! mux.sink_0 nvstreammux name=mux batch-size=1 width={WIDTH} height={HEIGHT} "
        f"attach-sys-ts=1 ! nvinfer config-file-path={detector} "
        f"! nvtracker ll-lib-file=/opt/nvidia/deepstream/deepstream/lib/libnvds_nvmultiobjecttracker.so "
        f"ll-config-file={tracker} ! nvinfer name=features config-file-path={folder}/nvinfer_secondary.txt ! fakesink"
    )

    def probe(_pad, info):
        bridge.probe(pyds, pyds.gst_buffer_get_nvds_batch_meta(hash(info.get_buffer())))
        return Gst.PadProbeReturn.OK

    pipeline.get_by_name("features").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, probe)
    pipeline.set_state(Gst.State.PLAYING)
    ended = Gst.MessageType.EOS | Gst.MessageType.ERROR
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ended)
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(message.parse_error()[0].message)


if __name__ == "__main__":
    folder, detector, tracker, gallery, uri = sys.argv[1:]
    store = reid_edge.open_store(f"sqlite:{gallery}")
    # Over the network: reid_edge.HttpTransport or reid_edge.MqttTransport instead.
    collector = reid_edge.Collector(store)
    transport = reid_edge.LocalTransport(collector.receive)
    outbox = reid_edge.Outbox("deepstream-outbox.db")
    delivery = reid_edge.Delivery(outbox, transport, camera="deepstream")
    delivery.start()
    bridge = Bridge(read_record(Path(folder)), outbox)
    try:
        run(bridge, folder, detector, tracker, uri)
    finally:
        bridge.finish()
        delivery.stop(drain_s=10)
        transport.close()
        print(f"stored {collector.stats.stored} observations in {gallery}; still waiting {outbox.depth}")
        outbox.close()
        store.close()
