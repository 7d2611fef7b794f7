# Who may take a role, and what the node may do: each statement is what one part of the platform asks for.

locals {
  # Training jobs, models, endpoints and feature groups that are ours begin with a module's name.
  sagemaker_things = {
    for kind in ["training-job", "model", "endpoint-config", "endpoint", "feature-group"] :
    kind => [for name in values(local.modules) : "arn:${local.aws}:sagemaker:${var.region}:${local.account}:${kind}/${name}*"]
  }

  secret_arns = ["arn:${local.aws}:secretsmanager:${var.region}:${local.account}:secret:mlops/*"]

  # The specification's own words: full access to five services.
  full_access = [
    "AmazonEC2ContainerRegistryFullAccess", "AmazonS3FullAccess", "AmazonSageMakerFullAccess", "CloudWatchFullAccessV2",
    "SecretsManagerReadWrite",
  ]
}

data "aws_iam_policy_document" "trust" {
  for_each = {
    node      = "ec2.amazonaws.com"
    lambda    = "lambda.amazonaws.com"
    sagemaker = "sagemaker.amazonaws.com"
    scheduler = "scheduler.amazonaws.com"
    flow      = "vpc-flow-logs.amazonaws.com"
  }

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }

    # Nobody else's schedule, training job or flow log may borrow the role. EC2 and Lambda send no such word.
    dynamic "condition" {
      for_each = contains(["node", "lambda"], each.key) ? [] : [local.account]

      content {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "node" {
  name               = "mlops-core"
  description        = "The node with the whole stack"
  assume_role_policy = data.aws_iam_policy_document.trust["node"].json
}

resource "aws_iam_instance_profile" "node" {
  name = "mlops-core"
  role = aws_iam_role.node.name
}

resource "aws_iam_role_policy" "node" {
  for_each = {
    data      = data.aws_iam_policy_document.node_data.json
    messages  = data.aws_iam_policy_document.node_messages.json
    images    = data.aws_iam_policy_document.node_images.json
    sagemaker = data.aws_iam_policy_document.node_sagemaker.json
    agent     = data.aws_iam_policy_document.node_agent.json
  }

  name   = each.key
  role   = aws_iam_role.node.id
  policy = each.value
}

resource "aws_iam_role_policy_attachment" "full_access" {
  for_each = toset(var.full_access ? local.full_access : [])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.aws}:iam::aws:policy/${each.key}"
}

data "aws_iam_policy_document" "node_data" {
  statement {
    sid       = "Objects"
    actions   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    resources = ["${aws_s3_bucket.data.arn}/*"]
  }

  # Without it S3 answers 403 for a key that is not there.
  statement {
    sid       = "Keys"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.data.arn]
  }

  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = local.secret_arns
  }

  statement {
    sid       = "TheKeyOfAllThat"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.main.arn]
  }
}

data "aws_iam_policy_document" "node_messages" {
  statement {
    sid       = "Stream"
    actions   = ["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards", "kinesis:PutRecords"]
    resources = [aws_kinesis_stream.transactions.arn]
  }

  statement {
    sid       = "Topic"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]
  }

  statement {
    sid       = "Queue"
    actions   = ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:SendMessage"]
    resources = [aws_sqs_queue.inbox.arn]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [local.namespace]
    }
  }

  # The exporter of endpoint metrics; CloudWatch knows no narrower word for reading.
  statement {
    sid       = "ReadMetrics"
    actions   = ["cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "node_images" {
  statement {
    sid       = "LogIn"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    sid = "PushAndPull"
    actions = [
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
      "ecr:DescribeRepositories", "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage",
      "ecr:UploadLayerPart",
    ]
    resources = [for repository in aws_ecr_repository.images : repository.arn]
  }
}

data "aws_iam_policy_document" "node_sagemaker" {
  statement {
    sid = "Training"
    actions = [
      "sagemaker:AddTags", "sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob",
    ]
    resources = local.sagemaker_things["training-job"]
  }

  statement {
    sid       = "Models"
    actions   = ["sagemaker:AddTags", "sagemaker:CreateModel", "sagemaker:DeleteModel", "sagemaker:DescribeModel"]
    resources = local.sagemaker_things["model"]
  }

  statement {
    sid = "EndpointConfigurations"
    actions = [
      "sagemaker:AddTags", "sagemaker:CreateEndpointConfig", "sagemaker:DeleteEndpointConfig",
      "sagemaker:DescribeEndpointConfig",
    ]
    resources = local.sagemaker_things["endpoint-config"]
  }

  # To make or change an endpoint one needs the right on its configuration as well.
  statement {
    sid     = "MakeEndpoints"
    actions = ["sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint"]
    resources = concat(
      local.sagemaker_things["endpoint"], local.sagemaker_things["endpoint-config"],
    )
  }

  statement {
    sid = "Endpoints"
    actions = [
      "sagemaker:AddTags", "sagemaker:DeleteEndpoint", "sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint",
    ]
    resources = local.sagemaker_things["endpoint"]
  }

  statement {
    sid = "FeatureGroups"
    actions = [
      "sagemaker:CreateFeatureGroup", "sagemaker:DescribeFeatureGroup", "sagemaker:GetRecord", "sagemaker:PutRecord",
    ]
    resources = local.sagemaker_things["feature-group"]
  }

  # Lists know no narrower word.
  statement {
    sid       = "Lists"
    actions   = ["sagemaker:ListEndpointConfigs", "sagemaker:ListModels"]
    resources = ["*"]
  }

  statement {
    sid       = "FindTheRole"
    actions   = ["iam:GetRole"]
    resources = [aws_iam_role.sagemaker.arn]
  }

  statement {
    sid       = "HandTheRoleOn"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.sagemaker.arn]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["sagemaker.amazonaws.com"]
    }
  }
}

# Systems Manager's agent: how the daily check reaches the node, and a shell without an open port. AWS's own policy for
# it opens every parameter of the account as well.
data "aws_iam_policy_document" "node_agent" {
  # checkov:skip=CKV_AWS_111: these actions know no narrower resource; they are the agent's talk about the machine it runs on
  # checkov:skip=CKV_AWS_356: the same
  statement {
    sid = "Agent"
    actions = [
      "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
      "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
      "ssm:ListInstanceAssociations", "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}
