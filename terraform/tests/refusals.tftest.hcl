# What is refused, each with a line that says what to write instead.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["us-east-1c"] }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  my_ip_cidr     = "203.0.113.7/32"
  repository_url = "https://example.com/team/mlops-platform.git"
}

run "the_whole_world" {
  command = plan
  variables {
    my_ip_cidr = "0.0.0.0/0"
  }
  expect_failures = [var.my_ip_cidr]
}

run "a_whole_network" {
  command = plan
  variables {
    my_ip_cidr = "203.0.113.0/24"
  }
  expect_failures = [var.my_ip_cidr]
}

run "an_ipv6_address" {
  command = plan
  variables {
    my_ip_cidr = "2001:db8::7/32"
  }
  expect_failures = [var.my_ip_cidr]
}

run "an_address_without_a_mask" {
  command = plan
  variables {
    my_ip_cidr = "203.0.113.7"
  }
  expect_failures = [var.my_ip_cidr]
}

run "no_address_at_all" {
  command = plan
  variables {
    my_ip_cidr = "0.0.0.0/32"
  }
  expect_failures = [var.my_ip_cidr]
}

run "a_token_in_the_repository_and_a_command_in_the_revision" {
  command = plan
  variables {
    repository_url      = "https://user:token@example.com/team/mlops-platform.git" # pragma: allowlist secret
    repository_revision = "main'; reboot #"
  }
  expect_failures = [var.repository_url, var.repository_revision]
}

run "everything_else_that_is_wrong" {
  command = plan
  variables {
    region            = "moon"
    environment       = "test"
    modules           = ["Fraud Detection"]
    instance_type     = "large"
    ssh_public_key    = "-----BEGIN OPENSSH PRIVATE KEY-----"
    bucket_name       = "Mlops"
    bucket_suffix     = "acme"
    stream_shards     = 0
    lambda_zip        = "no.zip"
    lambda_target     = "both"
    outage_hours      = 48
    alert_email       = "nobody"
    github_repository = "acme/*"
    sagemaker_model   = { image = "fraud-serve:latest", archive = "model.tar.gz", environment = { X = "redis://:hunter2@cache:6379/0" } } # pragma: allowlist secret
  }
  expect_failures = [
    var.region, var.environment, var.modules, var.instance_type, var.ssh_public_key, var.bucket_name, var.bucket_suffix,
    var.stream_shards, var.lambda_zip, var.lambda_target, var.outage_hours, var.alert_email, var.sagemaker_model,
    var.github_repository,
  ]
}
