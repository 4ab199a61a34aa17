"""`python -m launch` on GKE: the JobSet, and what becomes of it, against a fake kubectl."""

import kubernetes_validate
from launch_tool import GKE, launch
import pytest
import yaml

pytestmark = pytest.mark.usefixtures("in_checkout")


def _manifest(tmp_path, *flags):
  assert launch("run", GKE, tmp_path, "--config.command=agentbank train --x='a b'", *flags) == 0
  return yaml.safe_load((tmp_path / "pod.yaml").read_text())


def test_the_jobset(fakes, tmp_path):
  jobset = _manifest(tmp_path, "--config.slices=2", "--config.bucket=bucket", "--config.service_account=sa",
                     "--config.max_restarts=7")
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
  job, = jobset["spec"]["replicatedJobs"]
  assert job["replicas"] == 2
  spec = job["template"]["spec"]
  assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (4, 4, 0)  # 16 chips, 4 a host
  rule, = spec["podFailurePolicy"]["rules"]
  assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
  pod = spec["template"]["spec"]
  assert pod["restartPolicy"] == "Never"
  assert pod["nodeSelector"] == {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                                 "cloud.google.com/gke-tpu-topology": "4x4", "cloud.google.com/gke-spot": "true"}
  container, = pod["containers"]
  assert container["command"] == ["bash", "-c", "agentbank train --x='a b'"]
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "bucket"
  assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]


@pytest.mark.parametrize("flags", [
    (), ("--config.queue=q", "--config.priority_class=high", "--config.spot=False", "--config.host_network=True"),
    ("--config.bucket=b", "--config.service_account=s")])
def test_the_job_in_it_has_kubernetes_schema(fakes, tmp_path, flags):
  jobset = _manifest(tmp_path, *flags)
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pod"},
         "spec": jobset["spec"]["replicatedJobs"][0]["template"]["spec"]}
  kubernetes_validate.validate(job, "1.31", strict=True)
  job["spec"]["parallelism"] = "four"
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(job, "1.31", strict=True)


def test_a_cluster_is_prepared(fakes, tmp_path):
  assert launch("create", GKE, tmp_path, "--config.slices=2") == 0
  calls = fakes.calls()
  assert calls[0] == ["gcloud", "container", "clusters", "get-credentials", "c", "--location=us-west4", "--quiet"]
  assert calls[1][:5] == ["kubectl", "apply", "--server-side", "--force-conflicts", "-f"]
  assert calls[3] == [
      "gcloud", "container", "node-pools", "create", "pod-1", "--cluster=c", "--location=us-west4",
      "--node-locations=us-west4-a", "--machine-type=ct5lp-hightpu-4t", "--tpu-topology=4x4", "--num-nodes=4",
      "--spot", "--quiet"]


@pytest.mark.parametrize("scenario, code, told", [
    ({"jobset": ["", " 0", " 1", "Completed 1"], "pods": [{"pod-slice-0-0": 0}]}, 0,
     "all pods were started again (1 of 2)"),
    ({"jobset": ["Failed 0"], "pods": [{"pod-slice-0-0": 137, "pod-slice-0-1": 2}]}, 2,
     "pod-slice-0-1 ended with exit code 2: another start would not help"),
    ({"jobset": ["Failed 2"], "pods": [{"pod-slice-0-0": 75, "pod-slice-0-1": None}]}, 75,
     "max_restarts = 2 is used up"),
    ({"jobset": ["NotFound"]}, 2, "was deleted while it ran"),
    ({"before": ["Completed"]}, 2, "is there and has Completed: delete it, or choose another name"),
])
def test_what_becomes_of_a_jobset(fakes, tmp_path, scenario, code, told, capfd):
  fakes.play(**scenario, logs=["[pod/pod-slice-0-0] step 1"])
  assert launch("run", GKE, tmp_path, "--config.command=agentbank train") == code
  out, err = capfd.readouterr()
  assert told in out + err
  if "before" not in scenario:
    assert (tmp_path / "logs" / "attempt-0" / "pods.log").read_text() == "[pod/pod-slice-0-0] step 1\n"
