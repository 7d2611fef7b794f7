# What changes where somebody asks for more, all of it at once: one plan is dear enough.

mock_provider "aws" {
  # The values that AWS would give are there already while it is only planned.
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["us-east-1c", "us-east-1b"] }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_eip" {
    defaults = { public_ip = "198.51.100.9" }
  }
  mock_resource "aws_instance" {
    defaults = { id = "i-0123456789abcdef0", private_ip = "10.42.0.10", arn = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/mock", key_id = "11111111-2222-3333-4444-555555555555" }
  }
  mock_resource "aws_kinesis_stream" {
    defaults = { arn = "arn:aws:kinesis:us-east-1:123456789012:stream/mock" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:mlops-alerts" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:us-east-1:123456789012:mock", url = "https://sqs.us-east-1.amazonaws.com/123456789012/mock" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mock" }
  }
  mock_resource "aws_ssm_document" {
    defaults = { arn = "arn:aws:ssm:us-east-1:123456789012:document/mlops-drift-check" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:us-east-1:123456789012:function:fraud-transactions" }
  }
  mock_resource "aws_ecr_repository" {
    defaults = { arn = "arn:aws:ecr:us-east-1:123456789012:repository/mock", repository_url = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mock" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mock" }
  }
}

variables {
  my_ip_cidr     = "203.0.113.7/32"
  repository_url = "https://example.com/team/mlops-platform.git"
}

run "everything_on" {
  command = plan

  variables {
    full_access    = true
    lambda_enabled = true
    lambda_target  = "sagemaker"

    github_repository = "acme/mlops-platform"
    force_destroy     = true
    bucket_suffix     = "-acme"
    alert_email       = "ml@example.com"
    ssh_public_key    = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0bS0B0J6Yk6s8mB2cQ7z7V9cC5l8m0QeC0f2Wm9d1P"
    modules           = ["fraud_detection", "complaint_triage"]
    sagemaker_model = {
      image   = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fraud-serve@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      archive = "s3://mlops-fraud-dev-acme/models/fraud_detection/3/model.tar.gz"
    }
  }

  assert {
    condition = toset([for one in aws_iam_role_policy_attachment.full_access : one.policy_arn]) == toset([
      "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryFullAccess", "arn:aws:iam::aws:policy/AmazonS3FullAccess",
      "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess", "arn:aws:iam::aws:policy/CloudWatchFullAccessV2",
      "arn:aws:iam::aws:policy/SecretsManagerReadWrite",
    ])
    error_message = "full access is not that to the five services"
  }
  assert {
    condition     = alltrue([for one in aws_iam_role_policy_attachment.full_access : one.role == aws_iam_role.node.name])
    error_message = "somebody else than the node has full access"
  }
  assert {
    condition     = aws_s3_bucket.data.bucket == "mlops-fraud-dev-acme" && output.bucket == "s3://mlops-fraud-dev-acme"
    error_message = "the suffix is not in the bucket's name"
  }
  assert {
    condition     = aws_s3_bucket.data.force_destroy && alltrue([for one in aws_ecr_repository.images : one.force_delete]) && alltrue([for one in aws_secretsmanager_secret.this : one.recovery_window_in_days == 0])
    error_message = "something would be left of a platform that was to be destroyed"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.enabled && aws_lambda_function.stream.environment[0].variables == tomap({ TARGET = "sagemaker", ENDPOINT_NAME = "fraud-detection", DEAD_LETTERS = "s3://mlops-fraud-dev-acme" })
    error_message = "Lambda does not read, or does not ask the endpoint"
  }
  assert {
    condition     = aws_vpc_endpoint.asked_by_lambda[0].service_name == "com.amazonaws.us-east-1.sagemaker.runtime" && length(aws_vpc_security_group_ingress_rule.lambda) == 0
    error_message = "Lambda has no door to the endpoint, or one to the API that it does not need"
  }
  assert {
    condition     = aws_sns_topic_subscription.people[0].protocol == "email" && aws_sns_topic_subscription.people[0].endpoint == "ml@example.com"
    error_message = "people are not told by mail"
  }
  assert {
    condition     = aws_instance.core.key_name == "mlops-operator" && startswith(output.ssh_command, "ssh ubuntu@198.51.100.9")
    error_message = "the operator's key is not on the node"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.platform) == 10 && toset([for one in aws_cloudwatch_metric_alarm.platform : one.dimensions.module]) == toset(var.modules)
    error_message = "a module has no alarms"
  }
  assert {
    condition = (
      aws_sagemaker_endpoint.scorer["fraud-detection"].name == "fraud-detection" &&
      aws_sagemaker_model.scorer["fraud-detection"].execution_role_arn == aws_iam_role.sagemaker.arn &&
      aws_sagemaker_model.scorer["fraud-detection"].primary_container[0].environment["MLOPS_PLATFORM__OBJECTS"] == "s3://mlops-fraud-dev-acme" &&
      aws_sagemaker_endpoint_configuration.scorer["fraud-detection"].production_variants[0].instance_type == "ml.t2.medium"
    )
    error_message = "the endpoint is not what was asked for"
  }
  assert {
    condition = { for one in data.aws_iam_policy_document.github_trust[0].statement[0].condition : one.variable => "${one.test} ${join(",", one.values)}" } == {
      "token.actions.githubusercontent.com:aud" = "StringEquals sts.amazonaws.com"
      "token.actions.githubusercontent.com:sub" = "StringEquals repo:acme/mlops-platform:ref:refs/heads/main"
    }
    error_message = "others than the workflow on main may take the role of GitHub"
  }
  assert {
    condition     = toset(keys(aws_iam_role_policy.github)) == toset(["images", "training"])
    error_message = "the role of GitHub may do something else than push and train"
  }
}

run "lambda_asks_the_api" {
  command = plan

  variables {
    lambda_enabled = true
  }

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.lambda[0].from_port == 8000 && aws_vpc_security_group_ingress_rule.lambda[0].cidr_ipv4 == null &&
      aws_vpc_endpoint.asked_by_lambda[0].service_name == "com.amazonaws.us-east-1.secretsmanager"
    )
    error_message = "Lambda reaches the API or its key not at all, or from elsewhere"
  }
}
