# What the folder makes when it is asked nothing but its two questions.

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

run "defaults" {
  command = plan

  assert {
    condition     = aws_instance.core.instance_type == "t3.large" && aws_instance.core.tags.Name == "mlops-core"
    error_message = "the node is not the t3.large mlops-core"
  }
  assert {
    condition = (
      data.aws_ami.ubuntu.owners == tolist(["099720109477"]) &&
      anytrue([for one in data.aws_ami.ubuntu.filter : one.name == "name" && one.values == toset(["ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*"])])
    )
    error_message = "the image is not Canonical's Ubuntu 22.04"
  }
  assert {
    condition = (
      aws_instance.core.root_block_device[0].volume_size == 30 && aws_instance.core.root_block_device[0].encrypted == true &&
      aws_instance.core.root_block_device[0].volume_type == "gp3"
    )
    error_message = "the root disk is not 30 GB of encrypted gp3"
  }
  assert {
    condition     = aws_instance.core.metadata_options[0].http_tokens == "required" && aws_instance.core.metadata_options[0].http_put_response_hop_limit == 2
    error_message = "credentials have to be asked for with a token, also from a container"
  }
  assert {
    condition     = aws_instance.core.iam_instance_profile == aws_iam_instance_profile.node.name && aws_iam_instance_profile.node.role == aws_iam_role.node.name
    error_message = "the node does not have its role"
  }
  assert {
    condition     = aws_instance.core.user_data_replace_on_change == false
    error_message = "a changed line of the script would throw the databases away"
  }
  assert {
    condition     = length(local.user_data) < 16384 && startswith(local.user_data, "#!/usr/bin/env bash\n") && strcontains(local.user_data, "mlops-core ready")
    error_message = "the user data is not the bootstrap, or too long"
  }
  assert {
    condition     = strcontains(local.user_data, "export REPOSITORY_URL='${var.repository_url}'") && strcontains(local.user_data, "export PUBLIC_ADDRESS='198.51.100.9'")
    error_message = "the bootstrap is not told what it needs"
  }

  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.operator : rule.from_port]) == toset([22, 3000, 5000, 8000, 9090])
    error_message = "the open ports are not 22, 3000, 5000, 8000 and 9090"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.operator : rule.cidr_ipv4 == var.my_ip_cidr && rule.from_port == rule.to_port && rule.ip_protocol == "tcp"])
    error_message = "somebody else than the operator can come in"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.lambda) == 0 && length(aws_vpc_endpoint.asked_by_lambda) == 0
    error_message = "there is a way in for a function that does not read"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_egress_rule.web : rule.from_port]) == toset([80, 443])
    error_message = "the node may ask more than web servers"
  }

  assert {
    condition     = aws_s3_bucket.data.bucket == "mlops-fraud-dev" && aws_s3_bucket.data.force_destroy == false
    error_message = "the bucket is not mlops-fraud-dev, or is thrown away with what is in it"
  }
  assert {
    condition     = aws_s3_bucket_versioning.data.versioning_configuration[0].status == "Enabled"
    error_message = "the bucket keeps no versions"
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.data.block_public_acls && aws_s3_bucket_public_access_block.data.block_public_policy && aws_s3_bucket_public_access_block.data.ignore_public_acls && aws_s3_bucket_public_access_block.data.restrict_public_buckets
    error_message = "the bucket can be made public"
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.data.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms"
    error_message = "the bucket is not encrypted with the key"
  }
  assert {
    condition     = one(aws_s3_bucket_ownership_controls.data.rule).object_ownership == "BucketOwnerEnforced"
    error_message = "objects can belong to others"
  }
  assert {
    condition = anytrue([
      for one in data.aws_iam_policy_document.tls_only.statement :
      one.effect == "Deny" && contains(one.actions, "s3:*") && length(one.resources) == 2 &&
      anytrue([for all in one.principals : all.type == "*"]) &&
      anytrue([for when in one.condition : when.variable == "aws:SecureTransport" && when.test == "Bool" && tolist(when.values) == tolist(["false"])])
    ])
    error_message = "the bucket answers without TLS"
  }
  assert {
    condition = (
      anytrue([for rule in aws_s3_bucket_lifecycle_configuration.data.rule : rule.status == "Enabled" && try(rule.abort_incomplete_multipart_upload[0].days_after_initiation, 0) > 0]) &&
      anytrue([for rule in aws_s3_bucket_lifecycle_configuration.data.rule : rule.status == "Enabled" && try(rule.noncurrent_version_expiration[0].noncurrent_days, 0) > 0])
    )
    error_message = "old versions or parts that nobody completes are kept for ever"
  }

  assert {
    condition     = toset([for one in aws_ecr_repository.images : one.name]) == toset(["fraud-train", "fraud-serve"])
    error_message = "the repositories are not fraud-train and fraud-serve"
  }
  assert {
    condition     = alltrue([for one in aws_ecr_repository.images : one.image_tag_mutability == "IMMUTABLE" && one.image_scanning_configuration[0].scan_on_push && one.encryption_configuration[0].encryption_type == "KMS"])
    error_message = "an image can be changed, or is not scanned or encrypted"
  }
  assert {
    condition     = keys(aws_ecr_lifecycle_policy.images) == keys(aws_ecr_repository.images)
    error_message = "images are kept for ever"
  }
  assert {
    condition = toset([for one in aws_secretsmanager_secret.this : one.name]) == toset([
      "mlops/openai", "mlops/redis-url", "mlops/journal-url", "mlops/ledger-url", "mlops/api-key", "mlops/git-token",
    ])
    error_message = "the secrets have other names"
  }
  assert {
    condition     = aws_kms_key.main.enable_key_rotation
    error_message = "the key is never changed"
  }

  assert {
    condition     = aws_kinesis_stream.transactions.name == "fraud-transactions" && aws_kinesis_stream.transactions.encryption_type == "KMS" && aws_kinesis_stream.transactions.shard_count == 1
    error_message = "the stream is not fraud-transactions with one encrypted shard"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.enabled == false
    error_message = "Lambda reads before anybody can decide"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.stream.bisect_batch_on_function_error == true
    error_message = "a failure of one record is not told, or not divided from the others"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.maximum_retry_attempts == 720 && aws_lambda_event_source_mapping.stream.maximum_record_age_in_seconds == 43200
    error_message = "a record is tried for ever, or not through an outage of twelve hours"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.destination_config[0].on_failure[0].destination_arn == aws_s3_bucket.data.arn
    error_message = "records that were not decided do not go to the bucket"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.stream.batch_size == 100 && aws_lambda_event_source_mapping.stream.parallelization_factor == 1
    error_message = "the records of one card do not stay in order"
  }
  assert {
    condition     = aws_lambda_function.stream.handler == "lambda_handler.handler" && aws_lambda_function.stream.timeout == 60 && aws_lambda_function.stream.dead_letter_config[0].target_arn == aws_sqs_queue.stream_dead.arn
    error_message = "the function is not the one of infra/lambda_handler.py"
  }
  assert {
    condition = aws_lambda_function.stream.environment[0].variables == tomap({
      TARGET         = "api"
      API_URL        = "http://10.42.0.10:8000"
      API_KEY_SECRET = "mlops/api-key"
      DEAD_LETTERS   = "s3://mlops-fraud-dev"
    })
    error_message = "the function's environment is not what its handler reads"
  }
  assert {
    condition     = toset([for one in aws_s3_bucket_notification.dead_letters.queue : one.filter_prefix]) == toset(["monitoring/dead_letters/", "aws/lambda/"])
    error_message = "nobody is told of dead letters"
  }

  assert {
    condition     = aws_sns_topic.alerts.name == "mlops-alerts" && aws_sqs_queue.inbox.name == "mlops-alerts" && aws_sns_topic_subscription.inbox.protocol == "sqs"
    error_message = "the topic and the queue are not mlops-alerts"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.inbox.redrive_policy).maxReceiveCount == 5 && aws_sqs_queue.inbox.visibility_timeout_seconds >= 3600
    error_message = "an alert comes back for ever, or while it is being handled"
  }
  assert {
    condition     = jsondecode(aws_sns_topic_subscription.inbox.filter_policy) == { name = ["fraud_detection"] }
    error_message = "the queue hears what its worker cannot read"
  }
  assert {
    condition = alltrue([
      for who, statements in { "sns.amazonaws.com" = data.aws_iam_policy_document.inbox.statement, "s3.amazonaws.com" = data.aws_iam_policy_document.stream_dead.statement } :
      alltrue([
        for one in statements :
        tolist(one.actions) == tolist(["sqs:SendMessage"]) && tolist(one(one.principals).identifiers) == tolist([who]) &&
        anytrue([for when in one.condition : when.variable == "aws:SourceArn" && when.test == "ArnEquals"])
      ])
    ])
    error_message = "others than the topic or the bucket can put messages into a queue"
  }
  assert {
    condition = toset(keys(aws_cloudwatch_metric_alarm.service)) == toset([
      "stream-function-fails", "stream-is-behind", "stream-dead-letters", "alerts-dead-letters", "node-fails",
    ]) && length(aws_cloudwatch_metric_alarm.platform) == 5
    error_message = "an alarm is missing"
  }
  assert {
    condition     = alltrue([for one in aws_cloudwatch_metric_alarm.service : contains(one.alarm_actions, aws_sns_topic.alerts.arn)]) && alltrue([for one in aws_cloudwatch_metric_alarm.platform : contains(one.alarm_actions, aws_sns_topic.alerts.arn)])
    error_message = "an alarm tells nobody"
  }
  assert {
    condition     = alltrue([for one in aws_cloudwatch_metric_alarm.platform : one.namespace == "mlops" && one.metric_name == "alerts" && one.dimensions.module == "fraud_detection" && one.treat_missing_data == "ignore" && one.threshold == 1])
    error_message = "the alarms do not stand on the platform's own metric"
  }
  assert {
    condition     = aws_scheduler_schedule.drift_check.target[0].arn == "arn:aws:scheduler:::aws-sdk:ssm:sendCommand" && jsondecode(aws_scheduler_schedule.drift_check.target[0].input) == { DocumentName = "mlops-drift-check", InstanceIds = ["i-0123456789abcdef0"] }
    error_message = "the schedule does not reach the node"
  }
  assert {
    condition     = strcontains(aws_ssm_document.drift_check.content, "monitoring.drift_report_scheduler --once") && !can(jsondecode(aws_ssm_document.drift_check.content).parameters)
    error_message = "the document does something else than the check, or lets others say what"
  }

  assert {
    condition = alltrue([
      for one in data.aws_iam_policy_document.node_sagemaker.statement :
      !contains(one.actions, "iam:PassRole") || (length(one.actions) == 1 && one.resources == toset([aws_iam_role.sagemaker.arn]) &&
      anytrue([for when in one.condition : when.test == "StringEquals" && when.variable == "iam:PassedToService" && tolist(when.values) == tolist(["sagemaker.amazonaws.com"])]))
    ])
    error_message = "a role can be handed to others than SageMaker"
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.full_access) == 0 && length(aws_iam_role.github) == 0
    error_message = "full access was given without being asked for"
  }
  assert {
    condition     = aws_iam_role.sagemaker.name == "mlops-sagemaker"
    error_message = "infra/ looks for the role mlops-sagemaker"
  }
  assert {
    condition     = length(aws_sagemaker_endpoint.scorer) + length(aws_sagemaker_model.scorer) == 0
    error_message = "an endpoint bills and nobody asked for one"
  }

  assert {
    condition     = output.mlflow_url == "http://198.51.100.9:5000" && output.grafana_url == "http://198.51.100.9:3000" && output.prometheus_url == "http://198.51.100.9:9090" && output.api_url == "http://198.51.100.9:8000"
    error_message = "a URL is not what it should be"
  }
  assert {
    condition     = output.bucket == "s3://mlops-fraud-dev" && output.stream == "kinesis://fraud-transactions" && output.queue == "sqs://mlops-alerts" && output.topic == "sns://arn:aws:sns:us-east-1:123456789012:mlops-alerts"
    error_message = "a URL of the platform's settings is not what it should be"
  }
  assert {
    condition     = toset(keys(output.repository_urls)) == toset(["fraud-train", "fraud-serve"]) && length(output.role_arns) == 3
    error_message = "a repository or a role is not told"
  }

  assert {
    condition = alltrue(flatten([
      for document in [
        data.aws_iam_policy_document.node_data, data.aws_iam_policy_document.node_messages, data.aws_iam_policy_document.node_images,
        data.aws_iam_policy_document.node_sagemaker, data.aws_iam_policy_document.node_agent, data.aws_iam_policy_document.lambda,
        data.aws_iam_policy_document.sagemaker, data.aws_iam_policy_document.scheduler, data.aws_iam_policy_document.flow,
        ] : [
        for one in document.statement : one.sid == "TheCodeMakesNoInterface" ? [] : [
          for action in one.actions : !strcontains(action, "*") && (
            !contains(one.resources, "*") || can(regex("^(ec2messages|ssmmessages):", action)) || contains([
              "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics", "cloudwatch:PutMetricData",
              "ecr:GetAuthorizationToken", "kinesis:ListStreams", "sagemaker:ListEndpointConfigs", "sagemaker:ListModels",
              "ssm:ListInstanceAssociations", "ssm:UpdateInstanceInformation",
            ], action)
          )
        ]
      ]
    ]))
    error_message = "an action holds a star, or is given for everything and could be narrower"
  }
  assert {
    condition = alltrue([
      for one in concat(tolist(data.aws_iam_policy_document.node_messages.statement), tolist(data.aws_iam_policy_document.sagemaker.statement)) :
      !contains(one.actions, "cloudwatch:PutMetricData") || anytrue([for when in one.condition : when.variable == "cloudwatch:namespace"])
    ])
    error_message = "metrics can be put into any namespace"
  }
  assert {
    condition = { for who, document in data.aws_iam_policy_document.trust : who => one(one(document.statement[0].principals).identifiers) } == {
      node = "ec2.amazonaws.com", lambda = "lambda.amazonaws.com", sagemaker = "sagemaker.amazonaws.com", scheduler = "scheduler.amazonaws.com",
      flow = "vpc-flow-logs.amazonaws.com",
    }
    error_message = "somebody else can take a role"
  }
}
